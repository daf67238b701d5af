"""How a process goes without losing a request: in which order, and how long each part may take.

`grpc.aio`'s `stop` cancels every call that it has not yet begun to handle, and those that come
until clients have heard of it: of 160 concurrent calls some 135 end CANCELLED (grpcio 1.67.1,
loadtests/NOTES.md). A connection that ends by its age loses none, so clients are moved that way
first, and the server is stopped when nobody is left on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

log = logging.getLogger(__name__)

Mode = Literal["exit", "stay", "now"]
"""exit: end when done; stay: keep serving whoever still comes until told to exit (for a preStop
hook: a container that ends before its SIGTERM may be started again); now: do not wait for clients
to move, and, said again, not for what is in flight either."""

_POLL_S = 0.05
_COUNT_S = 0.5
"""Connections are counted this often: thousands of them take tens of milliseconds to count."""
_LAST_S = 2.0
"""For the server to stop once nothing of ours is in flight: what it waits for then is calls it has
not begun to handle, and streams that end with their client only (reflection)."""
_AGE_JITTER = 1.1
"""gRPC spreads `max_connection_age_ms` by a tenth either way (gRFC A9)."""
_AGE_MARGIN_S = 1.0
"""For the two steps of a graceful GOAWAY (RFC 9113, 6.8) and what races with them."""


class Traffic(Protocol):
    """What is drained."""

    in_flight: int
    departing: bool
    """Set at once: readiness is denied, requests are still taken."""
    draining: bool
    """Set when new requests are to be refused."""
    streams_end: asyncio.Event
    """Set when streams are to end as soon as they have nothing in flight."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long what may take, seconds."""

    delay_s: float
    """Requests are taken as ever, while load balancers notice."""
    limit_s: float
    """Then for clients to move and for what is in flight."""
    age_s: float
    """Age at which connections are told to end; 0: never."""


class Drain:
    """One process's drain.

    Args:
        traffic: what is drained.
        times: how long what may take.
        connections: counts the clients' connections still open.
    """

    def __init__(self, traffic: Traffic, times: Times, connections: Callable[[], int]) -> None:
        self.begun = False
        self._traffic = traffic
        self._times = times
        self._connections = connections
        self._haste = 0
        self._stays = False
        self._left = False
        self._asked = asyncio.Event()

    @property
    def is_drained(self) -> bool:
        """Whether clients have moved and nothing is in flight."""
        return self._left and self._traffic.in_flight == 0

    def ask(self, mode: Mode) -> bool:
        """Begin, or go on as told; whether that was the first time, so that `run` is to be run."""
        first = not self.begun
        self.begun = True
        self._traffic.departing = True
        self._stays = mode == "stay" and (first or self._stays)
        if mode == "now":
            self._haste += 1
        self._asked.set()
        return first

    def signalled(self) -> Mode:
        """What a SIGTERM asks for: to go on to the end, and to hurry where that is under way."""
        return "now" if self.begun and not self._stays else "exit"

    async def run(self) -> float:
        """Wait until the server may be stopped; return what it then has for its last calls, s."""
        traffic, times = self._traffic, self._times
        log.info("draining, %d in flight", traffic.in_flight)
        await self._until(lambda: False, times.delay_s)
        traffic.streams_end.set()
        end_s = time.monotonic() + times.limit_s
        await self._clients_gone()
        self._left = True
        if self._stays:
            await self._until(lambda: self.is_quiet() or not self._stays, times.limit_s)
            log.info("drained, %d in flight; staying until SIGTERM", traffic.in_flight)
            await self._until(lambda: not self._stays, float("inf"))
            end_s = time.monotonic() + times.limit_s
        traffic.draining = True
        await self._until(self.is_quiet, end_s - time.monotonic(), haste=2)
        if traffic.in_flight:
            log.warning("gave up on %d requests after %g s", traffic.in_flight, times.limit_s)
        if self._haste > 1:
            return 0.0
        left_s = end_s - time.monotonic()
        return min(left_s, _LAST_S) if self.is_quiet() else left_s

    def is_quiet(self) -> bool:
        """Whether nothing is in flight."""
        return self._traffic.in_flight == 0

    async def _clients_gone(self) -> None:
        """Every connection that was open reaches its age, is told so, and no new call comes on it.

        One that is younger may be there still at the end: whoever opened it was told NOT_SERVING.
        """
        age_s = self._times.age_s
        if not age_s:
            return
        wanted_s = _AGE_JITTER * age_s + _AGE_MARGIN_S
        limit_s = min(wanted_s, self._times.limit_s)
        await self._until(lambda: self._connections() == 0, limit_s, poll_s=_COUNT_S)
        if wanted_s > self._times.limit_s and (left := self._connections()):
            log.warning(
                "%d connections may not know yet that this server goes: drain_seconds is %g, and "
                "%g would be enough for a max_connection_age_s of %g",
                *(left, self._times.limit_s, wanted_s, age_s),
            )

    async def _until(
        self, done: Callable[[], bool], limit_s: float, *, haste: int = 1, poll_s: float = _POLL_S
    ) -> None:
        """Wait until something is so, for a time at most, or until told to hurry so much."""
        end_s = time.monotonic() + limit_s
        while self._haste < haste and not done() and (left_s := end_s - time.monotonic()) > 0:
            self._asked.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, poll_s)):
                    await self._asked.wait()
