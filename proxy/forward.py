"""The call to Triton: made at most once a message, cancelled if nobody wants its answer."""

from __future__ import annotations

import asyncio

from proxy import rpc
from proxy.budget import timed
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

    def start(self) -> asyncio.Task[Answer]:
        """Send the message if that has not happened; the task holds its answer."""
        if self._task is None:
            self._task = self._tasks.start(self.once(), quiet=True)
        return self._task

    async def once(self) -> Answer:
        """Send the message and return the answer, without the cost of a task of its own."""
        with timed(self._inspection.flow, "upstream"):
            return await self._upstream.call(
                rpc.INFER.path,
                self._data,
                timeout_s=self._timeout_s,
                metadata=self._inspection.metadata,
            )

    def replace(self, data: bytes) -> None:
        """Send this message instead; an answer to the old one is dropped."""
        self.abandon()
        self._task = None
        self._data = data
        self._timeout_s = self._inspection.timeout_s

    def abandon(self) -> None:
        """Cancel the call if it is still under way."""
        if self._task is not None:
            self._task.cancel()
