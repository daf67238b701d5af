"""Answers leave at multiples of the quantum, in time for the client."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pacing import Pacer, wait_s

TIMES = st.floats(min_value=0, max_value=1e6)


@pytest.mark.parametrize(
    ("taken_s", "wanted_s"), [(0.0, 0.020), (0.003, 0.017), (0.019, 0.001), (0.021, 0.019)]
)
def test_it_waits_for_the_next_multiple(taken_s: float, wanted_s: float) -> None:
    assert wait_s(0.0, taken_s, 0.020, None) == pytest.approx(wanted_s)


def test_a_deadline_comes_first_whatever_was_done() -> None:
    quick, slow = (taken + wait_s(0.0, taken, 0.020, 0.015) for taken in (0.001, 0.009))
    assert quick == pytest.approx(0.010)
    assert slow == pytest.approx(quick)


def test_an_answer_that_is_late_leaves_at_once() -> None:
    assert wait_s(0.0, 0.5, 0.020, 0.4) == 0.0


@given(TIMES, TIMES, st.floats(min_value=1e-3, max_value=10), st.none() | TIMES)
def test_it_never_waits_longer_than_a_quantum(
    arrival_s: float, taken_s: float, quantum_s: float, deadline_s: float | None
) -> None:
    waited = wait_s(arrival_s, arrival_s + taken_s, quantum_s, deadline_s)
    assert 0.0 <= waited <= quantum_s * (1 + 1e-6)


async def test_sleepers_are_woken_in_time_and_in_order() -> None:
    pacer, woken = Pacer(), []

    async def sleep(name: str, seconds: float) -> float:
        at_s = time.monotonic() + seconds
        await pacer.sleep_until(at_s)
        woken.append(name)
        return time.monotonic() - at_s

    try:
        late = await asyncio.gather(sleep("c", 0.3), sleep("a", 0.0), sleep("b", 0.15))
    finally:
        pacer.close()
    assert woken == ["a", "b", "c"]
    assert min(late) >= 0


async def test_who_goes_is_not_woken_and_a_closed_pacer_ends() -> None:
    pacer = Pacer()
    going = asyncio.ensure_future(pacer.sleep_until(time.monotonic() + 0.05))
    staying = asyncio.ensure_future(pacer.sleep_until(time.monotonic() + 0.1))
    await asyncio.sleep(0)
    going.cancel()
    await staying
    assert going.cancelled()
    pacer.close()
    Pacer().close()
