from __future__ import annotations

import numpy as np
import pytest

from loadtests.query_attacks.run import Outcome, attack, summary
from tests.loadtests.query_attacks.opponents import BRIGHT, LINF, Script, flat, target
from tuning.evaluate.attempt import Attempt, Habits
from tuning.evaluate.oracle import Answer, Image


class Steps:
    """Asks one level after the other, then ends."""

    def __init__(self, *levels: float) -> None:
        self._levels = levels

    def __call__(self, attempt: Attempt, seed: int) -> None:
        for level in self._levels:
            attempt.look(flat(level))


def outcome(oracle: object, *levels: float, **habits: object) -> Outcome:
    return attack(
        Steps(*levels),
        oracle,  # type: ignore[arg-type]
        BRIGHT,
        target(),
        LINF,
        seed=1,
        habits=Habits(**habits),  # type: ignore[arg-type]
    )


def test_a_win_against_the_bare_model() -> None:
    won = outcome(BRIGHT, 125, 160, 129, 130)
    assert (won.ended, won.won_at, won.won_answer, won.served_at) == ("won", 3, "served", 3)
    assert (won.queries, won.refused) == (3, 0)


def test_a_win_that_was_corrected_or_refused_is_told_apart() -> None:
    kept = outcome(Script([0]), 125, 129)
    assert (kept.ended, kept.won_at, kept.won_answer) == ("finished", 2, "corrected")
    assert kept.served_at == 0
    refused = outcome(Script([0, None, 1]), 125, 129, 130)
    assert (refused.ended, refused.won_at, refused.won_answer) == ("won", 2, "refused")
    assert (refused.served_at, refused.refused) == (3, 1)


def test_nothing_won() -> None:
    lost = outcome(BRIGHT, 125, 126)
    assert (lost.ended, lost.won_at, lost.won_answer, lost.served_at) == ("finished", 0, "", 0)
    assert outcome(Script([None]), *range(60)).ended == "gave up"
    assert outcome(BRIGHT, *range(60), budget=7).ended == "budget"


class Restless:
    """Asks one new image at each start."""

    def __call__(self, attempt: Attempt, seed: int) -> None:
        attempt.look(np.random.default_rng(seed).random((3, 16, 16)).astype(np.float32) / 10)


def test_an_attack_that_ends_early_starts_again() -> None:
    again = attack(Restless(), BRIGHT, BRIGHT, target(), LINF, seed=1, habits=Habits(budget=10))
    assert (again.ended, again.queries) == ("budget", 10)


class Broken:
    def ask(self, image: Image) -> Answer:
        raise RuntimeError("query 1: UNAVAILABLE: no connection")


def test_a_broken_measurement_is_no_outcome() -> None:
    with pytest.raises(RuntimeError, match="no connection"):
        outcome(Broken(), 1)


def test_summary() -> None:
    outcomes = [outcome(BRIGHT, 129), outcome(BRIGHT, *range(100, 110), 129), outcome(BRIGHT, 1)]
    told = summary(outcomes)
    assert told["won"] == told["served"] == pytest.approx(2 / 3)
    assert told["won_at_median"] == 6
    assert told["won_in_3"] == told["needs_10"] == pytest.approx(1 / 3)
    assert (told["queries"], told["refused"]) == (13, 0)
    nothing = summary([outcome(BRIGHT, 1)])
    assert nothing["won_at_median"] is nothing["served_at_median"] is None
