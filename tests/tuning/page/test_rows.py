"""Tables of rows."""

from __future__ import annotations

import math

from tuning.page.rows import Row, columns, mean, number, table

ROWS: list[Row] = [
    {"tier": "a", "attack": "pgd", "share": 0.5},
    {"tier": "b", "attack": "cw", "share": None},
    {"tier": "a", "attack": "cw", "share": 1},
]


def test_rows_become_lines_and_columns_in_order() -> None:
    lines = table(ROWS, "tier", "attack")
    assert list(lines) == ["a", "b"]
    assert columns(lines) == ["pgd", "cw"]
    assert lines["a"]["cw"] is ROWS[2]


def test_figures_that_are_not_there_are_nan() -> None:
    assert number(ROWS[2], "share") == 1.0
    assert math.isnan(number(ROWS[1], "share"))
    assert math.isnan(number(ROWS[0], "tier"))
    assert mean(table(ROWS, "tier", "attack")["a"], ["pgd", "cw", "none"]) == 0.75
    assert math.isnan(mean({}, ["pgd"]))
