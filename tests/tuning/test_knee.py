"""The search for the knee, on queues whose knee is known, and on a real server."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from proxy import wire
from tests.images import benign
from tuning.knee import QUICK, Knee, Plan, Step, find_knee, measure_capacity
from tuning.load import Client
from tuning.triton import EmbeddedTriton

SERVICE_MS = 1.0


class Queue:
    """One server, random arrivals, every request the same work (M/D/1); time is simulated."""

    def __init__(self, disturbed: Callable[[int], float] = lambda step: 0.0) -> None:
        self.steps = 0
        self._rng = np.random.default_rng(3)
        self._disturbed = disturbed

    async def __call__(self, rate: float) -> Step:
        arrivals = np.cumsum(self._rng.exponential(1000 / rate, 20_000))
        free_at, latencies = 0.0, np.empty(len(arrivals))
        for i, arrival in enumerate(arrivals):
            free_at = max(free_at, arrival) + SERVICE_MS
            latencies[i] = free_at - arrival
        latencies += self._disturbed(self.steps)
        self.steps += 1
        throughput = 1000 * len(arrivals) / free_at
        p50, p99 = np.percentile(latencies, (50, 99))
        return Step(rate, throughput, p50, p99, throughput >= 0.9 * rate)


def share_that_waits_no_longer_than_one_service(load: float) -> float:
    """Of M/D/1 (Erlang 1909): P(W <= s) = (1 - load) exp(load)."""
    return (1 - load) * math.exp(load)


async def search(queue: Queue, limit_ms: float = 2 * SERVICE_MS, first: float = 30.0) -> Knee:
    return await find_knee(queue, limit_ms, Plan(first))


async def test_finds_where_one_in_a_hundred_waits_for_a_whole_service() -> None:
    loads = np.linspace(0.01, 0.9, 9000)
    within = [share_that_waits_no_longer_than_one_service(load) >= 0.99 for load in loads]
    expected = 1000 / SERVICE_MS * loads[within][-1]
    knee = await search(Queue())
    assert knee.throughput_per_s == pytest.approx(expected, rel=0.15)
    assert knee.is_bounded
    assert knee.lowest_failure_per_s <= 1.08 * knee.best.offered_per_s  # type: ignore[union-attr]


@pytest.mark.parametrize("first", [1.0, 30.0, 500.0, 5000.0])
async def test_finds_the_same_from_wherever_it_begins(first: float) -> None:
    knee = await search(Queue(), first=first)
    assert knee.throughput_per_s == pytest.approx(139, rel=0.2)


async def test_one_disturbed_step_is_no_failure() -> None:
    knee = await search(Queue(lambda step: 50.0 if step % 5 == 1 else 0.0))
    assert knee.throughput_per_s == pytest.approx(139, rel=0.2)


async def test_a_server_that_is_never_fast_enough_has_no_knee() -> None:
    knee = await search(Queue(), limit_ms=0.5 * SERVICE_MS)
    assert knee.best is None
    assert knee.throughput_per_s == 0
    assert knee.is_bounded


async def test_the_search_ends_where_nothing_is_too_fast() -> None:
    async def endless(rate: float) -> Step:
        return Step(rate, rate, 1.0, 1.0, True)

    knee = await find_knee(endless, 2.0, Plan(10.0, most_steps=8))
    assert len(knee.steps) == 8
    assert not knee.is_bounded
    assert knee.best is knee.steps[-1]


async def test_a_low_p99_of_the_few_that_were_answered_is_no_success() -> None:
    async def refusing(rate: float) -> Step:
        return Step(rate, min(rate, 100), 1.0, 1.0, rate <= 100)

    knee = await find_knee(refusing, 2.0, Plan(10.0))
    assert 90 <= knee.throughput_per_s <= 100


def message(model: str = "digits_like") -> bytes:
    x = benign(1, 0)
    return wire.build_infer_request(model, "", [("image", "FP32", x.shape, x.tobytes())])


@pytest.mark.triton
async def test_a_real_server_has_a_knee(triton: EmbeddedTriton) -> None:
    async with Client(triton.grpc_address, [message()]) as client:
        capacity = await measure_capacity(client, QUICK)
    assert 0 < capacity.idle_p50_ms <= capacity.idle_p99_ms
    assert capacity.knee.limit_ms == 2 * capacity.idle_p99_ms
    rates = [step.offered_per_s for step in capacity.curve]
    assert rates == sorted(set(rates))


@pytest.mark.triton
async def test_a_server_that_only_fails_has_no_capacity(triton: EmbeddedTriton) -> None:
    async with Client(triton.grpc_address, [message("no_such_model")]) as client:
        with pytest.raises(RuntimeError, match="300 of 300 lone requests failed"):
            await measure_capacity(client, QUICK)
