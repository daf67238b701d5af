"""The call to Triton for a client's request: made at most once a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any

from proxy.answers import check_whose
from proxy.budget import add_time, timed
from proxy.cancellations import Cancellations
from proxy.inspection import Inspection
from proxy.tasks import Tasks
from proxy.upstream import Answer, Upstream


class Coming:
    """The answer to a call under way: whoever stops waiting for it does not end the call."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[Answer]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, Answer]:
        """Wait for the answer; any number of times."""
        return asyncio.shield(self._task).__await__()


class Forward:
    """A message on its way to Triton.

    Args:
        cancellations: grants the end of calls that nobody waits for; others run on, unheard.
        data: the message, for now that of the client.
    """

    def __init__(
        self,
        upstream: Upstream,
        tasks: Tasks,
        cancellations: Cancellations,
        inspection: Inspection,
        data: bytes,
    ) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._cancellations = cancellations
        self._inspection = inspection
        self._data = data
        self._timeout_s = inspection.timeout_s
        self._task: asyncio.Task[Answer] | None = None
        self._started_s = 0.0
        self._is_sent = False
        self._is_evidence = False
        self.needless = False
        """The client's own message was sent in vain, or would have been had it been sent at once:
        its answer is void, and no detector has asked for it."""

    def start(self) -> Coming:
        """Send the message if that has not happened."""
        if self._task is None:
            self._started_s = time.monotonic()
            self._task = self._tasks.start(self._send(), quiet=True)
            self._task.add_done_callback(self._note)
        return Coming(self._task)

    def as_evidence(self) -> Coming:
        """Like `start`, for a detector that looks at the answer."""
        self._is_evidence = True
        return self.start()

    async def once(self) -> Answer:
        """Send the message and return the answer, without the cost of a task of its own."""
        flow = self._inspection.flow
        try:
            with timed(flow, "upstream"):
                return await self._send()
        finally:
            flow.waited_s = flow.stage_s["upstream"]

    def replace(self, data: bytes) -> None:
        """Send this message instead; nobody waits for an answer to the old one."""
        self.void()
        self._data = data
        self._timeout_s = self._inspection.timeout_s
        self._is_sent = False

    def void(self) -> None:
        """Nobody is to see the answer: end the call, and count it as wasted."""
        task, self._task = self._task, None
        if task is not None and _has_failed(task):
            return
        self.needless = not self._is_evidence
        if task is None:
            return
        if not self._is_sent:  # decided at once, before the loop came to it
            task.cancel()
            return
        cancelled = self._end(task)
        metrics, started_s = self._inspection.defence.metrics, self._started_s

        def count(_: asyncio.Task[Answer]) -> None:
            seconds = time.monotonic() - started_s
            metrics.upstream_wasted("cancelled" if cancelled else "ran", seconds)

        if task.done():
            count(task)
        else:
            task.add_done_callback(count)

    def leave(self) -> None:
        """The client has gone: end the call."""
        task, self._task = self._task, None
        if task is not None:
            if not task.done():  # otherwise it has been noted
                self._inspection.flow.waited_s = time.monotonic() - self._started_s
            self._end(task)

    def _end(self, task: asyncio.Task[Answer]) -> bool:
        """Cancel a call, or where that would be one too many, let it go; whether it was cancelled.

        Where too many run on unheard already, the next ends all the same: they must stay bounded.
        """
        if task.done():
            return False
        if self._tasks.has_room and not self._cancellations.grant():
            self._tasks.let_go(task)
            return False
        return task.cancel()

    async def _send(self) -> Answer:
        self._is_sent = True
        inspection = self._inspection
        with inspection.flow.calling("upstream", inspection.metadata) as metadata:
            answer = await self._upstream.infer(
                self._data,
                timeout_s=self._timeout_s,
                metadata=metadata,
                request=inspection.request,
            )
        check_whose(answer.data, inspection.flow.client_id)
        return answer

    def _note(self, task: asyncio.Task[Answer]) -> None:
        """Note the time of a call whose answer counts; a void one ends after its request."""
        if task is self._task:
            seconds = time.monotonic() - self._started_s
            add_time(self._inspection.flow, "upstream", seconds)
            self._inspection.flow.waited_s = seconds


def _has_failed(task: asyncio.Task[Answer]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
