"""Background tasks with a strong reference and a logged failure.

asyncio keeps only a weak reference to a task: one that nobody holds can vanish mid-flight.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

MOST_LET_GO = 64
"""Most tasks left to finish although nobody waits for them."""

log = logging.getLogger(__name__)


class Tasks:
    """The set of tasks one component has started."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._let_go: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], *, quiet: bool = False) -> asyncio.Task[T]:
        """Run `work` in the background; a failure is logged unless `quiet` (somebody awaits it)."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget_quietly if quiet else self._forget)
        return task

    @property
    def has_room(self) -> bool:
        """Whether one more task may be let go without cancelling it."""
        return len(self._let_go) < MOST_LET_GO

    def let_go(self, task: asyncio.Task[Any]) -> None:
        """Nobody waits for this task any more: let it finish, or cancel it if many do already.

        For calls to Triton: releases before 25.05 can crash when a call is cancelled
        (triton-inference-server #7368; 24.10 did in the tests of this package).
        """
        if task.done():
            return
        if not self.has_room:
            task.cancel()
            return
        self._let_go.add(task)
        task.add_done_callback(self._let_go.discard)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task %s failed", task.get_name(), exc_info=error)

    def _forget_quietly(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: whoever awaited the task has seen it

    async def stop(self) -> None:
        """Cancel everything still running and wait until it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
