"""The call to Triton: made at most once a message."""

from __future__ import annotations

import asyncio
import time

from proxy.budget import add_time, timed
from proxy.inspection import Inspection
from proxy.tasks import Tasks
from proxy.upstream import Answer, Upstream


class Forward:
    """A message on its way to Triton.

    Args:
        data: the message, for now that of the client.
    """

    def __init__(
        self, upstream: Upstream, tasks: Tasks, inspection: Inspection, data: bytes
    ) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._inspection = inspection
        self._data = data
        self._timeout_s = inspection.timeout_s
        self._task: asyncio.Task[Answer] | None = None
        self._started_s = 0.0

    def start(self) -> asyncio.Task[Answer]:
        """Send the message if that has not happened; the task holds its answer."""
        if self._task is None:
            self._started_s = time.monotonic()
            self._task = self._tasks.start(self._send(), quiet=True)
            self._task.add_done_callback(self._note)
        return self._task

    async def once(self) -> Answer:
        """Send the message and return the answer, without the cost of a task of its own."""
        with timed(self._inspection.flow, "upstream"):
            return await self._send()

    def replace(self, data: bytes) -> None:
        """Send this message instead; nobody waits for an answer to the old one."""
        self.abandon()
        self._data = data
        self._timeout_s = self._inspection.timeout_s

    def abandon(self) -> None:
        """The answer is void; the call ends by itself."""
        task, self._task = self._task, None
        if task is not None:
            self._tasks.let_go(task)

    def cancel(self) -> None:
        """The client has gone: end the call, as it would have ended without us."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _send(self) -> Answer:
        return await self._upstream.infer(
            self._data,
            timeout_s=self._timeout_s,
            metadata=self._inspection.metadata,
            request=self._inspection.request,
        )

    def _note(self, task: asyncio.Task[Answer]) -> None:
        """Note the time of a call whose answer counts; a void one ends after its request."""
        if task is self._task:
            add_time(self._inspection.flow, "upstream", time.monotonic() - self._started_s)
