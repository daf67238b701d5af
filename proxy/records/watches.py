"""Those who follow the records as they come: each has a short queue and loses the oldest."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from proxy.records.record import Record

MAX_WATCHES = 16
"""Who may watch one process at a time."""
QUEUE = 256
"""Records that wait for one reader."""


class TooManyWatches(RuntimeError):
    """As many watch as may; one of them must leave first."""


class Watch(AsyncIterator[Record]):
    """Records as they come; ends when the server stops or after `close`.

    Args:
        model: of this one only; None: of all.
        everything: also samples that are not notable.
        on_drop: told each time a record is lost, since the reader is slower than the traffic.
    """

    def __init__(
        self, model: str | None, *, everything: bool, on_drop: Callable[[int], None]
    ) -> None:
        self.model = model
        self.everything = everything
        self.is_closed = False
        self._on_drop = on_drop
        self._waiting: deque[Record] = deque(maxlen=QUEUE)
        self._changed = asyncio.Event()

    def tell(self, record: Record) -> None:
        """Put a record in the queue, in the oldest one's place where it is full."""
        if self.model is not None and record.model != self.model:
            return
        if len(self._waiting) == QUEUE:
            self._on_drop(1)
        self._waiting.append(record)
        self._changed.set()

    def close(self) -> None:
        """End: what is in the queue can still be read."""
        self.is_closed = True
        self._changed.set()

    async def __anext__(self) -> Record:
        """The next record."""
        while not self._waiting:
            if self.is_closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class Watches:
    """All who watch.

    Args:
        on_drop: told how many records were lost.
    """

    def __init__(self, on_drop: Callable[[int], None]) -> None:
        self._on_drop = on_drop
        # A reader that goes without a word takes its watch with it.
        self._open: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._closed = False

    def __len__(self) -> int:
        return sum(not watch.is_closed for watch in self._open)

    @property
    def wants_everything(self) -> bool:
        """Whether somebody follows samples that are not notable, too."""
        return any(watch.everything for watch in self._open if not watch.is_closed)

    def open(self, model: str | None, *, everything: bool) -> Watch:
        """Begin to watch.

        Raises:
            TooManyWatches: there are `MAX_WATCHES` already.
        """
        if len(self) >= MAX_WATCHES:
            raise TooManyWatches(f"{MAX_WATCHES} are watching already; try again when one has left")
        watch = Watch(model, everything=everything, on_drop=self._on_drop)
        if self._closed:
            watch.close()
        self._open.add(watch)
        return watch

    def tell(self, records: Iterable[Record], *, notable: bool) -> None:
        """Pass on what was scored."""
        told = [
            watch for watch in self._open if not watch.is_closed and (notable or watch.everything)
        ]
        for record in records if told else ():
            for watch in told:
                watch.tell(record)

    def close(self) -> None:
        """End them all, and those to come."""
        self._closed = True
        for watch in self._open:
            watch.close()


async def told(watch: Watch) -> AsyncIterator[dict[str, Any]]:
    """What a watch tells, ready for JSON; it is closed when nobody reads on."""
    try:
        async for record in watch:
            yield record.to_json()
    finally:
        watch.close()
