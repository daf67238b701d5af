"""Requests at a rate, by hand-made HTTP/2: it must cost less than what it is to overload."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from loadtests.chaos.traffic import Images
from loadtests.http2 import (
    DATA,
    END_STREAM,
    GOAWAY,
    RESET,
    Connection,
    Windows,
    call,
    frames,
    opened,
)
from loadtests.overload.callers import image
from loadtests.overload.tally import Tally, Target

CONNECTIONS = 16
_EACH_S = 0.01


async def flood(target: Target, tally: Tally) -> None:
    """Requests whether or not earlier ones are answered, as far as the server's windows let them.

    An answer with data counts as served, one without as refused.
    """
    images = Images()
    messages = [image(images) for _ in range(64)]
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(_ever(target, messages, tally))


async def _ever(target: Target, messages: list[bytes], tally: Tally) -> None:
    while True:
        async with opened(target.address) as connection:
            await _Flooding(connection, messages, tally, target.rate / CONNECTIONS).run()
        tally.counts["connections ended"] += 1


@dataclass
class _Flooding:
    """One connection."""

    connection: Connection
    messages: list[bytes]
    tally: Tally
    rate: float
    began_s: dict[int, float] = field(default_factory=dict)
    """By stream, of those without an answer."""
    served: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._windows = Windows(self.connection)

    async def run(self) -> None:
        """Return when the server has ended the connection."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send())
            await self._receive()
            sending.cancel()

    async def _send(self) -> None:
        _, to = self.connection
        begun_s, sent, following = time.monotonic(), 0, 1
        with contextlib.suppress(ConnectionError):
            while True:
                due = int((time.monotonic() - begun_s) * self.rate)
                for number in range(sent, due):
                    data = self.messages[number % len(self.messages)]
                    if not self._may_send(following, len(data)):
                        self.tally.counts["held back by a window"] += 1
                        continue
                    stream, following = following, following + 2
                    self.began_s[stream] = time.monotonic()
                    to.write(call(stream, data))
                sent = due
                await to.drain()
                await asyncio.sleep(_EACH_S)

    def _may_send(self, stream: int, size: int) -> bool:
        room = len(self.began_s) < self._windows.most_streams
        return room and self._windows.take(stream, size + 5)  # with the message's own prefix

    async def _receive(self) -> None:
        async for kind, flags, stream, body in frames(self.connection[0]):
            self._windows.note(kind, flags, stream, body)
            if kind == DATA:
                self.served.add(stream)
            elif kind == GOAWAY:
                return
            if stream and (kind == RESET or flags & END_STREAM) and stream in self.began_s:
                self._ended(stream)

    def _ended(self, stream: int) -> None:
        self._windows.forget(stream)
        took_s = time.monotonic() - self.began_s.pop(stream)
        if stream in self.served:
            self.served.discard(stream)
            self.tally.counts["OK"] += 1
        else:
            self.tally.counts["refused"] += 1
            self.tally.refusals_ms.append(1000 * took_s)
