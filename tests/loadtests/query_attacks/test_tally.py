"""Runs to rows, by hand and against scipy."""

from __future__ import annotations

import pytest
from scipy import stats

from loadtests.query_attacks.runs import Run
from loadtests.query_attacks.tally import detection, finds, interval, moments, success, successes


def run(
    *, detected: int = 0, served: int = 0, won: int = 0, queries: int = 50, free: int | None = 60
) -> Run:
    return Run(
        seed=0,
        queries=queries,
        seconds=queries / 100,
        detected_at=detected,
        won_at=won or served,
        served_at=served,
        alarms=int(detected > 0),
        undefended_at=free,
    )


def test_an_interval_is_exact() -> None:
    low, high = stats.binomtest(7, 40).proportion_ci(0.95, "exact")
    assert interval([True] * 7 + [False] * 33) == pytest.approx((7 / 40, low, high))
    assert interval([]) == (0.0, 0.0, 1.0)


def test_what_is_a_search() -> None:
    assert run(free=10).is_search
    assert run(free=0).is_search  # never wins
    assert run(free=None, served=4).is_search
    assert not run(free=None, served=3).is_search
    assert not run(free=9).is_search


def test_what_is_detected() -> None:
    assert run(detected=5).is_detected
    assert run(detected=5, served=9).is_detected
    assert not run(detected=9, served=5).is_detected
    assert not run().is_detected
    assert (run(detected=5).seen_for, run(queries=30).seen_for) == (5, 30)


def test_detection_counts_searches_only() -> None:
    runs = [run(detected=2), run(detected=4), run(queries=50), run(detected=1, free=3)]
    row = detection(runs)
    assert (row["runs"], row["searches"]) == (4, 3)
    assert row["detected"] == pytest.approx(2 / 3, abs=1e-4)
    assert row["detected_of_all"] == 0.75
    assert (row["query_median"], row["query_most"]) == (4, 50)
    assert moments(runs) == "2 4 -"


def test_lucky_runs_are_counted_apart() -> None:
    runs = [run(served=3), run(served=4), run(won=7, detected=6), run()]
    assert successes(runs) == [True, False, False]
    assert finds(runs) == [True, True, False]
    row = success(runs)
    assert row["lucky"] == 1
    assert row["success"] == pytest.approx(1 / 3, abs=1e-4)
    assert row["found"] == pytest.approx(2 / 3, abs=1e-3)
    assert (row["undefended"], row["undefended_median"]) == (1.0, 60)
    assert row["ms_per_query"] == 10
    assert row["seeds"] == "0 to 3"


def test_without_an_undefended_counterpart_nothing_is_said_of_it() -> None:
    row = success([run(free=None)])
    assert row["undefended"] is None
    assert row["undefended_median"] is None
