"""Predicted intervals hold what a second draw shows; what misses is said to miss."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tuning.search import scene
from tuning.search.outcome import Count
from tuning.search.promises import Interval, expected, latency_row, rate_rows
from tuning.search.space import Candidate


def test_nineteen_of_twenty_second_draws_lie_in_the_interval() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        seen = Count(int(rng.binomial(700, 0.01)), 700)
        held += expected(seen, 1200).holds(rng.binomial(1200, 0.01) / 1200)
    assert 0.9 <= held / 200 <= 0.99


def test_more_evidence_makes_it_narrower() -> None:
    few, many = expected(Count(1, 100), 100), expected(Count(100, 10_000), 10_000)
    assert few.high - few.low > many.high - many.low
    assert expected(Count(0, 100), 100).low == 0


def test_only_the_worst_groups_rate_is_to_be_reached() -> None:
    made = Candidate(scene.PALETTE, 0.05, None, "flag", "none", "speculative")
    outcome = scene.bench().outcome(made)
    flagged = {group: Count(50, 1000) for group in scene.GROUPS}
    flagged |= {"unknown": Count(1, 2), "empty": Count(0, 0)}
    rows = rate_rows(outcome, flagged, "fresh images")
    assert [row["group"] for row in rows] == list(scene.GROUPS)
    (told,) = [row for row in rows if "to_reach" in row]
    assert told["group"] == outcome.worst_group
    assert told["met"] is True
    missed = rate_rows(outcome, {outcome.worst_group: Count(400, 1000)}, "fresh images")
    assert missed[0]["met"] is False


@pytest.mark.parametrize(
    ("measured", "met"), [(10.0, True), (11.9, True), (12.1, False), (7.0, False)]
)
def test_a_p99_is_within_a_fifth_or_not(measured: float, met: bool) -> None:
    row = latency_row(10.0, measured, 400, "p99")
    assert row["met"] is met
    assert row["value"] == pytest.approx(measured / 10)


def test_an_interval_has_its_ends() -> None:
    assert Interval(0.1, 0.2).holds(0.1)
    assert not Interval(0.1, 0.2).holds(0.21)
