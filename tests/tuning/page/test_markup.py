"""Pieces of HTML: escaped, complete, and readable without colours."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tuning.page.reader import read
from tuning.page import markup
from tuning.page.rows import Row

HOSTILE = '<script>alert("x")</script>'
SHARES: dict[str, dict[str, Row]] = {
    "one": {"pgd": {"share": 0.25}, "cw": {"share": 0.5}},
    "two": {"pgd": {"share": 0.75}},
}


def test_the_best_of_a_column_is_bold_and_what_is_missing_empty() -> None:
    shown = markup.heat(SHARES, "line", titled=str.upper)
    assert '<td class="heat best" style="--v:0.750">0.75</td>' in shown
    assert '<td class="heat best" style="--v:0.500">0.50</td></tr>' in shown
    assert shown.endswith("<td></td></tr></tbody></table></div>")
    assert ">PGD</th>" in shown
    loss = markup.heat(SHARES, "line", is_loss=True)
    assert '<td class="heat loss best" style="--v:0.250">0.25</td>' in loss


@pytest.mark.parametrize(
    "shown",
    [
        markup.heat({HOSTILE: {HOSTILE: {"share": 0.5}}}, HOSTILE),
        markup.plain([{HOSTILE: HOSTILE}]),
        markup.shapes([{HOSTILE: HOSTILE}]),
        markup.legend([HOSTILE]),
        markup.plot("<svg></svg>", HOSTILE),
        markup.pictures(HOSTILE, {HOSTILE: np.zeros((3, 4, 4), np.uint8)}),
    ],
)
def test_whatever_a_name_holds_is_text(shown: str) -> None:
    read(shown)
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_values_are_written_for_people() -> None:
    cells = [markup.cell(value) for value in (True, False, 0.123456, 12, None, "a<b")]
    assert cells == ["yes", "no", "0.1235", "12", "-", "a&lt;b"]


def test_rows_of_one_shape_share_a_table() -> None:
    shown = markup.shapes([{"a": 1}, {"b": 2}, {"a": 3}])
    assert shown.count("<details>") == 2
    assert "(2 rows)" in shown


def test_small_and_grey_pictures() -> None:
    images = {
        "grey": np.zeros((1, 8, 8), np.uint8),
        "colour": np.zeros((3, 200, 200), np.uint8),
    }
    shown = markup.pictures("PGD", images)
    assert shown.count('class="small"') == 1
    assert shown.count('src="data:image/png;base64,') == 2
    assert 'alt="PGD: grey"' in shown
