"""The distinguisher finds what can be told apart, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.oracle.distinguisher import by_everything, by_latency
from loadtests.oracle.seen import Seen


def answers(
    seconds: np.ndarray, *, code: str = "OK", keys: tuple[tuple[str, str], ...] = ()
) -> list[Seen]:
    return [Seen(each, code, "", keys, 40, b"h", (1, 5, 6), (40,)) for each in seconds]


def times(seed: int, mean_s: float = 0.010) -> np.ndarray:
    return mean_s + np.random.default_rng(seed).gamma(2.0, 0.001, 300)


def test_alike_is_guessing() -> None:
    one, other = answers(times(1)), answers(times(2))
    assert by_latency(one, other).value < 0.55
    told = by_everything(one, other, seed=1)
    assert told.low < 0.5 < told.high


def test_a_longer_time_tells_and_so_does_a_shorter() -> None:
    quick, slow = answers(times(1)), answers(times(2, 0.014))
    assert by_latency(quick, slow).value > 0.9
    assert by_latency(slow, quick).value > 0.9
    assert by_everything(quick, slow, seed=1).value > 0.85


@pytest.mark.parametrize(
    "marked",
    [{"code": "UNAVAILABLE"}, {"keys": (("breakwater-verdict", "suspicious"),)}],
)
def test_any_mark_tells(marked: dict) -> None:  # type: ignore[type-arg]
    plain, odd = answers(times(1)), answers(times(2), **marked)
    assert by_everything(plain, odd, seed=1).value > 0.99
