"""When speculation is given up for want of worth, and when it is taken up again."""

from __future__ import annotations

import random

import pytest

from proxy.dispatch import DWELL_S, LEAST, Governor


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def changes(governor: Governor, rate: float, requests: int, seed: int = 0) -> int:
    """How often the dispatch changes over requests of which this share is needless."""
    drawn = random.Random(seed)
    return sum(governor.observe(needless=drawn.random() < rate) for _ in range(requests))


def test_it_begins_with_speculation_and_keeps_it_at_the_usual_rate_of_false_alarms() -> None:
    governor = Governor(0.1, Clock())
    assert governor.is_speculative
    assert changes(governor, 0.01, 100_000) == 0
    assert governor.share == pytest.approx(0.01, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_it_falls_back_once_and_returns_once(seed: int) -> None:
    clock = Clock()
    governor = Governor(0.1, clock)
    assert changes(governor, 0.5, 1000, seed) == 1
    assert not governor.is_speculative
    assert changes(governor, 0.01, 2000, seed) == 0  # no time has passed
    clock.now_s += DWELL_S
    assert changes(governor, 0.01, 2000, seed) == 1
    assert governor.is_speculative


def test_between_the_bounds_it_stays_as_it_is() -> None:
    clock = Clock()
    spared, asked = Governor(0.1, clock), Governor(0.1, clock)
    changes(spared, 1.0, 100)
    clock.now_s += DWELL_S
    for governor in (spared, asked):
        before = governor.is_speculative
        assert not any(governor.observe(needless=i % 13 == 0) for i in range(3000))
        assert governor.is_speculative is before


def test_few_requests_change_nothing() -> None:
    governor = Governor(0.001, Clock())
    assert changes(governor, 1.0, LEAST - 1) == 0
    assert governor.observe(needless=True)


def test_falling_back_waits_for_no_clock() -> None:
    assert changes(Governor(0.1, Clock()), 1.0, LEAST + 5) == 1


def test_at_one_it_never_falls_back() -> None:
    assert changes(Governor(1.0, Clock()), 1.0, 5000) == 0
