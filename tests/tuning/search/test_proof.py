"""Two policies beside each other on the same samples; the sidecars are in test_tune."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tuning.search import scene
from tuning.search.latency import cost
from tuning.search.optimise import Trial
from tuning.search.outcome import HELD
from tuning.search.proof import OLD, RECOMMENDED, compared, held_out
from tuning.search.recorded import record
from tuning.search.space import Action, Candidate
from tuning.search.threats import threats_of

RECORDED = record(scene.made())
SPACE = scene.space()
BENCH = scene.bench(RECORDED, SPACE)
THREATS = threats_of(RECORDED)


def policy(action: Action, names: tuple[str, ...] = scene.PALETTE) -> Candidate:
    chain = "jpeg" if action == "purify" else "none"
    return Candidate(names, 0.01, None, action, chain, "speculative")


def rows(new: Candidate, old: Candidate) -> dict[str, dict[str, float]]:
    found = compared(new, old, BENCH, RECORDED, THREATS, {})
    return {str(row["figure"]): row for row in found}  # type: ignore[misc]


def test_a_policy_differs_from_itself_in_nothing() -> None:
    for row in rows(policy("purify"), policy("purify")).values():
        assert row["difference"] == 0
        assert -0.03 < row["difference_low"] < 0 < row["difference_high"] < 0.03


@pytest.mark.parametrize("action", ["purify", "block"])
def test_acting_leaves_less_harm_than_flagging(action: Action) -> None:
    found = rows(policy(action), policy("flag"))
    row = found["harm, all attacks"]
    assert row["difference_high"] < 0
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert found["false alarms, clean"]["difference"] == 0


def test_the_harm_is_that_of_the_held_out_half() -> None:
    row = rows(policy("purify"), policy("flag", ("margin",)))["harm, all attacks"]
    attacks = THREATS[0].attacks
    assert row["new"] == pytest.approx(
        BENCH.outcome(policy("purify"), HELD).harm(attacks), abs=1e-4
    )
    assert row["old"] == pytest.approx(
        BENCH.outcome(policy("flag", ("margin",)), HELD).harm(attacks), abs=1e-4
    )


def test_latency_is_compared_where_both_ran() -> None:
    measured = {
        RECOMMENDED: cost(np.linspace(5, 6, 100), 1.0),
        OLD: cost(np.linspace(7, 8, 100), 1.0),
    }
    found = compared(policy("flag"), policy("flag"), BENCH, RECORDED, THREATS, measured)
    assert found[-1]["difference"] == pytest.approx(-2, abs=0.01)


def test_the_held_out_half_is_held_against_the_searched_one() -> None:
    made = policy("flag")
    outcome = BENCH.outcome(made)
    found = held_out(Trial(made, outcome, scene.paths(SPACE).predict(made, outcome)), BENCH)
    assert {row["samples"] for row in found} == {400}
    assert [row["met"] for row in found if "met" in row] == [True]
