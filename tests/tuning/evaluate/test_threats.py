"""The table of threat models."""

from __future__ import annotations

from tests.tuning.evaluate.reported import report
from tuning.evaluate.sizes import THREATS
from tuning.evaluate.threats import MODELS, table


def test_every_threat_model_is_declared() -> None:
    assert set(MODELS) == set(THREATS)
    rows = table(report()["rows"])
    assert [row["threat model"] for row in rows] == list(THREATS)
    assert all(str(row["measured"]).startswith("yes, ") for row in rows)


def test_budgets_are_those_of_the_rows() -> None:
    budgets = {row["threat model"]: row["budget"] for row in table(report()["rows"])}
    assert budgets["adaptive"] == "each pixel by 2, 8/255, 50 gradient steps"
    assert budgets["black-box query"] == "300 queries"


def test_one_bound_is_no_range() -> None:
    rows = [{"kind": "attack", "threat": "oblivious", "samples": 9, "linf_255": 8.0}]
    assert table(rows)[0]["budget"] == "pixels by up to 8 of 255 (medians)"
    rows.append({**rows[0], "linf_255": 2.0})
    assert table(rows)[0]["budget"] == "pixels by up to 2 to 8 of 255 (medians)"


def test_what_was_not_measured_says_so() -> None:
    rows = table([{"kind": "adaptive", "threat": "adaptive", "skipped": "no copy"}])
    assert [row["measured"] for row in rows] == ["no", "no", "no", "no", "no: no copy"]
