"""Unary calls that wait for their client's message.

gRPC keeps what has come of a message for as long as the call lasts. Such calls hold no permit, so
that slow clients keep nobody out; they are counted here, and the one that has waited longest gives
way to one more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import grpc

from proxy.errors import InvalidRequest, Overloaded


class Waiting:
    """The calls of one process that wait for their client.

    Args:
        capacity: most of them.
        on_end: called for each that had to give way.
    """

    def __init__(self, capacity: int, *, on_end: Callable[[], None] = lambda: None) -> None:
        self._on_end = on_end
        self._capacity = capacity
        self._calls: dict[asyncio.Task[object], None] = {}
        """In order of waiting."""
        self._ended: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._calls)

    async def message(self, context: grpc.aio.ServicerContext) -> bytes:
        """The call's message.

        Raises:
            InvalidRequest: there is none.
            Overloaded: the call had to give way.
        """
        task = self._begin()
        try:
            data = await context.read()
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise Overloaded("the request did not arrive in time") from None
        finally:
            self._end(task)
        if data is grpc.aio.EOF:
            raise InvalidRequest("the call has no message, or one larger than max_message_bytes")
        message: bytes = data
        return message

    def give_way(self, count: int) -> int:
        """End so many of those that have waited longest; returns how many there were."""
        chosen = list(self._calls)[:count]
        for task in chosen:
            del self._calls[task]
            self._ended.add(task)
            task.cancel()
            self._on_end()
        return len(chosen)

    def _begin(self) -> asyncio.Task[object]:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        if len(self._calls) >= self._capacity:
            self.give_way(1)
        self._calls[task] = None
        return task

    def _end(self, task: asyncio.Task[object]) -> None:
        self._calls.pop(task, None)
        self._ended.discard(task)
