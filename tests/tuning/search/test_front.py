"""What is on a front, what is taken of it, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rule import Threshold
from tuning.search.front import ALL, Choice, Threat, binding, choose, front, standard_error
from tuning.search.latency import Predicted
from tuning.search.optimise import Limits, Trial
from tuning.search.outcome import Attacked, Count, Outcome
from tuning.search.space import Action, Candidate

LIMITS = Limits(5.0, 0.01, 0.01)
THREAT = Threat(ALL, ("a",))


def trial(
    name: str,
    ms: float,
    wrong: float,
    *,
    fpr: float = 0.005,
    action: Action = "purify",
    samples: int = 1000,
) -> Trial:
    """A policy that costs this and leaves so many attacks, all of them unnoticed."""
    left = Count(round(wrong * samples), samples)
    outcome = Outcome(
        Threshold(3.0, 0.01, 0.02, 100, "clean"),
        {"clean": Count(round(fpr * 10_000), 10_000)},
        {},
        Count(899, 1000),
        Count(900, 1000),
        {"a": Attacked(left, left, Count(samples - left.count, samples))},
        np.ones(1),
    )
    predicted = Predicted(5 + ms, 6 + ms, ms, ms, 1.0, 0.5)
    return Trial(Candidate((name,), 0.01, None, action, "jpeg", "speculative"), outcome, predicted)


CHEAP, GOOD, BEST = trial("cheap", 1, 0.5), trial("good", 2, 0.2), trial("best", 4, 0.05)
WORSE, DEAR = trial("worse", 3, 0.3), trial("dear", 9, 0.01)
EVERY = [BEST, DEAR, CHEAP, WORSE, GOOD]


def chosen(trials: list[Trial], *, may_block: bool = False) -> Choice:
    found = choose(trials, LIMITS, THREAT, may_block=may_block)
    assert found is not None
    return found


def test_none_on_the_front_is_both_cheaper_and_better() -> None:
    assert front(EVERY, LIMITS, ("a",)) == [CHEAP, GOOD, BEST]


def test_the_least_harm_is_taken_with_its_neighbours() -> None:
    found = chosen(EVERY)
    assert found.taken is BEST
    assert found.cheaper is GOOD
    assert found.stronger is DEAR


def test_of_those_that_cannot_be_told_apart_the_cheapest() -> None:
    nearly = trial("nearly", 1.5, 0.055)
    assert chosen([*EVERY, nearly]).taken is nearly
    few = [trial("cheap", 1, 0.2, samples=10), trial("best", 4, 0.1, samples=10)]
    assert chosen(few).taken is few[0]


def test_what_refuses_is_taken_only_where_that_is_wanted() -> None:
    refusing = trial("refusing", 2, 0.0, action="block")
    quiet = chosen([*EVERY, refusing])
    assert quiet.taken is BEST
    assert refusing in quiet.front  # shown all the same
    assert chosen([*EVERY, refusing], may_block=True).taken is refusing


def test_two_sentences_tell_what_it_buys_and_costs() -> None:
    told = chosen(EVERY).why()
    assert told.count(". ") == 1
    assert "leaves 5% a wrong answer, 5% unnoticed, for +4.00 ms of p99" in told
    assert "0.50% false alarms in the worst benign group (clean)" in told
    assert "+0.10% of clean accuracy lost" in told
    assert "2.00 ms dearer at p99 and 0.150 less harm than the next cheaper, 'purify" in told
    assert "harm from 0.050 to 0.010 for +5.00 ms of p99" in told
    alone = chosen([BEST]).why()
    assert "Nothing on the front costs less; nothing that was tried is stronger." in alone


def test_without_attacks_nothing_is_promised_against_them() -> None:
    found = choose(EVERY, LIMITS, Threat(ALL, ()), may_block=False)
    assert found is not None
    assert found.taken is CHEAP
    assert "No attacks were recorded" in found.why()


def test_where_nothing_keeps_the_limits_it_says_which_binds_and_what_is_near() -> None:
    alarming = [trial("one", 6, 0.1, fpr=0.03), trial("two", 1, 0.1, fpr=0.02)]
    assert choose(alarming, LIMITS, THREAT, may_block=False) is None
    told = binding(alarming, LIMITS)
    assert "of 2 candidates 1 keep the added p99, 0 keep the false-positive rate" in told
    assert "false-positive rate binds" in told
    nearest, further = told.splitlines()[1:]
    assert "two" in nearest
    assert "one" in further


def test_errors_of_shares_at_the_ends_are_not_nothing() -> None:
    sure = trial("sure", 1, 0.0, samples=20).outcome
    assert 0.03 < standard_error(sure, ("a",)) < 0.1
    assert standard_error(sure, ("b",)) == 0
    big, small = (trial("x", 1, 0.3, samples=n).outcome for n in (2000, 20))
    assert standard_error(big, ("a",)) == pytest.approx((0.21 / 2000) ** 0.5, rel=0.01)
    assert standard_error(small, ("a",)) > standard_error(big, ("a",))
