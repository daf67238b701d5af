"""Open-loop load: requests leave when they are due, whether or not earlier ones are answered.

Latency counts from the time a request was due. A client that waits for answers before it sends on
stops asking exactly while the server is slow, and its percentiles come out too good ("coordinated
omission"). Messages are bytes made beforehand, so that the client costs little. Knows nothing of
what it asks for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
import numpy as np
import numpy.typing as npt

from proxy import rpc

CONNECTIONS = 4
MOST_OUTSTANDING = 400
"""With more unanswered the server does not keep up, and the step is over."""
TIMEOUT_S = 10.0
TIMER_S = 0.001
"""Event loops wake on whole milliseconds: lateness up to this after a sleep is the timer's, and
does not count as latency. `lag_p99_ms` shows what is left of the client's own lateness."""

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # or all channels would share one connection
)


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one step of load."""

    offered_per_s: float
    """Arrivals per second asked for; 0 where one request was sent at a time."""
    latency_ms: npt.NDArray[np.float64]
    """(N,) of the answered requests, from when each was due."""
    errors: int
    unsent: int
    """Not sent, since the server had fallen too far behind."""
    duration_s: float
    """From the first request to the last answer."""
    lag_p99_ms: float
    """How late the client itself was with 99 % of the requests, beyond its timer."""

    @property
    def throughput_per_s(self) -> float:
        """Answers per second."""
        return len(self.latency_ms) / self.duration_s

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latency; infinite where nothing was answered."""
        if not len(self.latency_ms):
            return float("inf")
        return float(np.percentile(self.latency_ms, percent))


class Client:
    """Sends inference requests to one server, over several connections in turn; close it after.

    Args:
        address: host:port.
        messages: serialised ModelInferRequests, sent in turn.
    """

    def __init__(
        self, address: str, messages: Sequence[bytes], *, connections: int = CONNECTIONS
    ) -> None:
        self._messages = tuple(messages)
        self._channels = [
            grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(connections)
        ]
        self._calls = [channel.unary_unary(rpc.INFER.path) for channel in self._channels]
        self._outstanding = 0

    async def one_at_a_time(self, count: int, *, pause_s: float) -> Load:
        """An idle server's latency: each request waits for the last one's answer and a pause."""
        run = _Run()
        started = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(pause_s)
            await self._send(run, number, time.perf_counter())
        return run.load(0.0, started, unsent=0)

    async def open_loop(self, rate_per_s: float, count: int, *, seed: int = 0) -> Load:
        """Random (Poisson) arrivals at a mean rate; ends early if the server falls far behind."""
        gaps = np.random.default_rng(seed).exponential(size=count)
        gaps *= count / rate_per_s / gaps.sum()  # exactly the rate asked for, whatever was drawn
        run = _Run()
        started = time.perf_counter()
        due_at = started + np.cumsum(gaps)
        unsent = 0
        async with asyncio.TaskGroup() as group:
            for number, due in enumerate(due_at.tolist()):
                if self._outstanding >= MOST_OUTSTANDING:
                    unsent = count - number
                    break
                arrival = await _until(due)
                run.lags_s.append(time.perf_counter() - arrival)
                group.create_task(self._send(run, number, arrival))
        return run.load(rate_per_s, started, unsent=unsent)

    async def _send(self, run: _Run, number: int, due: float) -> None:
        self._outstanding += 1
        call = self._calls[number % len(self._calls)]
        try:
            await call(self._messages[number % len(self._messages)], timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError:
            run.errors += 1
        else:
            run.latencies_s.append(time.perf_counter() - due)
        finally:
            self._outstanding -= 1

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class _Run:
    """What a step collects."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.lags_s: list[float] = []
        self.errors = 0

    def load(self, rate_per_s: float, started: float, *, unsent: int) -> Load:
        return Load(
            offered_per_s=rate_per_s,
            latency_ms=np.array(self.latencies_s, dtype=np.float64) * 1000,
            errors=self.errors,
            unsent=unsent,
            duration_s=time.perf_counter() - started,
            lag_p99_ms=float(np.percentile(self.lags_s, 99)) * 1000 if self.lags_s else 0.0,
        )


async def _until(due: float) -> float:
    """Wait until then; returns the time that latency counts from."""
    wait_s = due - time.perf_counter()
    await asyncio.sleep(max(wait_s, 0.0))  # even when late: the requests sent so far must leave
    if wait_s <= 0:
        return due
    return due + min(max(time.perf_counter() - due, 0.0), TIMER_S)
