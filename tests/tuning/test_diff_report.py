"""The comparison of two policies as numbers and as text."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from scipy import stats

from tests.proxy.explorer.scores import NAMES, drawn
from tests.tuning.test_diff import Files, recorded_of
from tuning.diff import Policy, Recorded, compare
from tuning.diff_report import OUTCOMES, report, show


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def told(recorded: dict, current: Policy, new: Policy, limit: int = 5) -> dict:
    found = report(compare(Recorded.read(recorded, "m"), current, new), current, new, limit)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def text_of(found: dict) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_counts_add_up_and_shares_have_their_intervals(files: Files) -> None:
    labels = ["benign"] * 100 + ["adversarial"] * 50 + [""] * 150
    recorded = recorded_of(drawn(300, 3, 0.8), label=labels)
    found = told(recorded, files.load("now", fpr=0.2), files.load("then", fpr=0.02))
    rows = {row["label"]: row for row in found["rows"]}
    assert {name: row["samples"] for name, row in rows.items()} == {
        "all": 300,
        "benign": 100,
        "adversarial": 50,
        "no label": 150,
    }
    for row in rows.values():
        assert sum(row[outcome] for outcome in OUTCOMES) == row["samples"]
        count, total = row["only_current"], row["samples"]
        assert count > 0
        assert row["only_current_low"] == pytest.approx(
            stats.beta.ppf(0.025, count, total - count + 1), abs=1e-9
        )
        assert row["only_current_high"] == pytest.approx(
            stats.beta.ppf(0.975, count + 1, total - count), abs=1e-9
        )
    assert rows["all"]["only_new"] == 0
    assert found["affected"] == rows["all"]["affected"] == rows["all"]["only_current"]
    assert {"current": "flag", "new": "none", "samples": found["affected"]} in found["actions"]
    assert len(found["samples"]) == 5
    assert f"flag -> none: {found['affected']}" in text_of(found)


def test_nothing_recorded(files: Files) -> None:
    found = told(recorded_of(drawn(0, 3)), files.load("now"), files.load("then"))
    assert (found["compared"], found["affected"], found["actions"]) == (0, 0, [])
    assert found["rows"][0]["both_share"] is None
    assert "0 of 0 recorded samples affected" in text_of(found)


def test_what_cannot_be_told_points_to_a_shadow(files: Files) -> None:
    parts = [{"name": name} for name in (*NAMES, "energy")]
    chained = [row < 7 for row in range(20)]
    recorded = recorded_of(drawn(20, 3), chain=chained)
    found = told(recorded, files.load("now"), files.load("then", detectors=parts))
    assert found["untold"] == {"samples": 20, "detectors": ["energy"], "series": 7}
    text = " ".join(text_of(found).split())
    assert "Not comparable: energy." in text
    assert "shadow: {policy:" in text
    assert "7 samples belong to a series of queries" in text


def test_hostile_text_is_printed_escaped(files: Files) -> None:
    ids = [f"[bold]\x1b[2J{row}:0" for row in range(60)]
    recorded = recorded_of(drawn(60, 3, 2.0), id=ids)
    found = told(recorded, files.load("now", fpr=0.2), files.load("then", fpr=0.02))
    assert found["samples"]
    text = text_of(found)
    assert "\x1b[2J" not in text
    assert r"[bold]\x1b[2J" in text


def test_waiting_for_a_purifier_is_told(files: Files) -> None:
    purify = {"action": "purify", "purifiers": [{"name": "median", "params": {"size": 3}}]}
    recorded = recorded_of(drawn(60, 3, 2.0))
    found = told(recorded, files.load("now"), files.load("then", **purify))
    assert found["delayed"] == found["affected"] > 0
    assert f"{found['delayed']} would wait for being purified" in text_of(found)
