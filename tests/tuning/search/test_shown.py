"""What is printed and written of a search, at the width of a terminal and with hostile names."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.tuning.search import scene
from tuning.search import shown
from tuning.search.front import Choice, choose
from tuning.search.optimise import Found, Limits, Search
from tuning.search.outcome import HELD
from tuning.search.picture import draw
from tuning.search.proof import compared, held_out
from tuning.search.recorded import record
from tuning.search.threats import threats_of

LIMITS = Limits(4.0, 0.012, 0.01)
RECORDED = record(scene.made())
SPACE = scene.space()
BENCH = scene.bench(RECORDED, SPACE)
THREATS = threats_of(RECORDED)


@pytest.fixture(scope="module")
def found() -> Found:
    attacks = THREATS[0].attacks
    search = Search(SPACE, BENCH, scene.paths(SPACE), LIMITS, attacks, 60)
    return search.run(list(SPACE.first()))


@pytest.fixture(scope="module")
def choices(found: Found) -> list[Choice]:
    made = [choose(found.trials, LIMITS, threat, may_block=False) for threat in THREATS]
    return [choice for choice in made if choice is not None]


def printed(table: Table) -> str:
    said = StringIO()
    Console(file=said, width=80).print(table)
    return said.getvalue()


def test_the_front_fits_a_terminal(choices: list[Choice]) -> None:
    for choice in choices:
        table = shown.front_table(choice, LIMITS)
        assert table.row_count <= shown.MOST_ROWS + 1
        text = printed(table)
        assert f"{choice.taken.outcome.harm(choice.threat.attacks):.3f}" in text
        assert "…" not in text.splitlines()[3]


def test_rows_are_flat_and_json(found: Found) -> None:
    rows = [shown.trial_row(trial, THREATS, LIMITS) for trial in found.trials]
    assert json.loads(json.dumps(rows)) == rows
    assert all(isinstance(v, str | int | float | bool | None) for row in rows for v in row.values())
    assert any(row["within_limits"] for row in rows)


def test_attacks_are_marked_that_the_search_or_the_defence_did_not_see(
    choices: list[Choice],
) -> None:
    rows = shown.attack_rows(BENCH.outcome(choices[0].taken.candidate, HELD), RECORDED)
    by_name = {str(row["attack"]): row for row in rows}
    assert {name for name, row in by_name.items() if row["unseen"]} == set(RECORDED.kept_back)
    assert by_name["fgsm_8"]["tuned_on"] is True
    assert "tuned on" in printed(shown.attack_table(rows))
    rows[0]["attack"] = "[red]x[/red]"
    assert "[red]x" in printed(shown.attack_table(rows))


def test_promises_and_comparisons(choices: list[Choice]) -> None:
    taken = choices[0].taken
    text = printed(shown.promise_table(held_out(taken, BENCH)))
    assert "yes" in text or "NO" in text
    first = next(iter(SPACE.first()))
    rows = compared(taken.candidate, first, BENCH, RECORDED, THREATS, {})
    assert "harm, all attacks" in printed(shown.comparison_table(rows))


def test_the_picture_has_a_panel_for_each_threat(
    found: Found, choices: list[Choice], tmp_path: Path
) -> None:
    draw(tmp_path / "tune.png", found.trials, choices, LIMITS, "m")
    with Image.open(tmp_path / "tune.png") as picture:
        assert picture.size[0] > 600 * len(choices)


def test_anchors() -> None:
    rows = shown.anchor_rows(scene.paths(SPACE).measured, 400)
    assert rows[0]["measured"] == "pass-through"
    assert all(row["p50_ms"] <= row["p99_ms"] for row in rows)  # type: ignore[operator]
