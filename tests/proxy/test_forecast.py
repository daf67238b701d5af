"""Forecasts follow what was measured, and fade when nothing is."""

from __future__ import annotations

import pytest

from proxy.forecast import Forecast, size_class


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_nothing_is_expected_of_what_nobody_has_seen() -> None:
    assert Forecast(Clock()).expected_s("score") == 0


def test_it_comes_to_expect_what_it_sees() -> None:
    forecast = Forecast(Clock())
    for _ in range(50):
        forecast.observe("score", 1.0)
    assert forecast.expected_s("score") == pytest.approx(1, rel=0.01)
    for _ in range(50):
        forecast.observe("score", 0.01)
    assert forecast.expected_s("score") == pytest.approx(0.01, rel=0.2)


def test_one_slow_pass_is_not_the_rule() -> None:
    forecast = Forecast(Clock())
    forecast.observe("score", 0.08)
    assert forecast.expected_s("score") <= 0.01
    for _ in range(50):
        forecast.observe("score", 0.01)
    forecast.observe("score", 0.08)
    assert forecast.expected_s("score") < 0.02


def test_stages_are_apart() -> None:
    forecast = Forecast(Clock())
    forecast.observe(("m", "score", 0), 1.0)
    assert forecast.expected_s(("m", "score", 1)) == 0


def test_what_is_not_tried_is_forgotten_bit_by_bit() -> None:
    clock = Clock()
    forecast = Forecast(clock)
    for _ in range(99):
        forecast.observe("views", 1.0)
    clock.seconds += 0.1
    assert forecast.expected_s("views") == pytest.approx(1, rel=0.01)
    clock.seconds += 0.5
    assert forecast.expected_s("views") == pytest.approx(0.5, rel=0.01)
    clock.seconds += 5
    assert forecast.expected_s("views") < 0.001


def test_after_a_pause_the_new_weighs_more_than_the_old() -> None:
    clock = Clock()
    forecast = Forecast(clock)
    forecast.observe("views", 1.0)
    clock.seconds += 10
    forecast.observe("views", 0.01)
    assert forecast.expected_s("views") < 0.01


def test_size_classes_are_powers_of_two() -> None:
    assert [size_class(n) for n in (0, 1, 2, 3, 4, 5, 32, 33)] == [0, 0, 1, 2, 2, 3, 5, 6]
    assert size_class(2**40) == 15


def test_what_overran_is_expected_to_overrun_in_the_end() -> None:
    forecast = Forecast(Clock())
    for _ in range(8):
        forecast.observe("views", 0.05, overran=True)
    assert forecast.expected_s("views") > 0.05
