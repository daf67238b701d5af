"""Many requests, one pass over the device: the only owner of the device thread.

The event loop hands entries over a queue; the device thread collects what belongs together, runs
it, and hands the results back in one call. Nothing else is shared, so there are no locks.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from proxy.errors import DetectorFailed, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")

CLOSE_S = 5.0
"""How long a pass that does not end may hold up the exit."""

Run = Callable[[Sequence[Item]], Sequence[Result | Exception]]
"""Maps n items to n results; an exception in the list fails that item alone."""


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    key: Hashable
    size: int
    item: Item
    run: Run[Item, Result]
    future: asyncio.Future[Result]
    deadline_s: float
    queued_s: float


class Batcher:
    """Runs items with equal keys together on one thread.

    Args:
        max_batch: most samples in one pass (an item larger than that runs alone).
        window_s: how long a batch that is not full waits for company.
        capacity: most entries waiting; `submit` refuses one more.
        company: how many requests are in the proxy now; a batch that already holds them all is
            not kept waiting.
        on_batch: told the number of samples of each pass and the entries still waiting.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        window_s: float,
        capacity: int,
        company: Callable[[], int],
        on_batch: Callable[[int, int], None],
    ) -> None:
        self._max_batch = max_batch
        self._window_s = window_s
        self._capacity = capacity
        self._company = company
        self._on_batch = on_batch
        self._inbox: queue.SimpleQueue[_Entry[Any, Any] | None] = queue.SimpleQueue()
        self._pending: deque[_Entry[Any, Any]] = deque()
        self._waiting = 0
        self._closed = False
        self._since_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="breakwater-device", daemon=True)
        self._thread.start()

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is run on the device or waits for it."""
        return not self._waiting

    @property
    def busy_s(self) -> float:
        """For how long the pass on the device has been running; 0 where there is none."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    async def submit(
        self,
        key: Hashable,
        item: Item,
        run: Run[Item, Result],
        *,
        size: int = 1,
        budget_s: float = float("inf"),
    ) -> tuple[Result, float]:
        """Run `item` with others of its key; return its result and the seconds it queued.

        Raises:
            Overloaded: too many entries wait already.
            DetectorFailed: the budget ran out first (reason `budget`).
            Exception: whatever `run` gave for this item.
        """
        if self._closed or self._waiting >= self._capacity:
            raise Overloaded("too many requests wait to be scored")
        if budget_s <= 0:
            raise DetectorFailed("budget")
        now = time.monotonic()
        future: asyncio.Future[tuple[Result, float]] = self._loop.create_future()
        entry = _Entry(key, size, item, run, cast(Any, future), now + budget_s, now)
        self._waiting += 1
        self._inbox.put(entry)
        if budget_s == float("inf"):
            return await future
        # `asyncio.timeout` costs 4 us here, a timer 0.7 us: `loadtests/NOTES.md`, Dispatch.
        timer = self._loop.call_later(budget_s, _expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    async def close(self, limit_s: float = CLOSE_S) -> None:
        """Stop the thread after the batch it is running; entries still waiting fail.

        On the event loop like `submit`, so that no entry can come in behind the last one. A batch
        that does not end is left behind: the thread ends with the process.
        """
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, limit_s)

    # -- device thread -------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._loop.is_closed():
            if not self._pending:
                entry = self._inbox.get()
                if entry is None:
                    break
                self._pending.append(entry)
            batch = self._collect()
            if batch is None:
                break
            if batch:
                self._since_s = time.monotonic()
                results = _run(batch)
                self._since_s = None
                self._hand_back(batch, results)
        self._hand_back(self._pending, [Overloaded("shutting down") for _ in self._pending])

    def _collect(self) -> list[_Entry[Any, Any]] | None:
        """Take the oldest entry and its company; None when told to stop."""
        if not self._receive():
            return None
        key = self._pending[0].key
        batch: list[_Entry[Any, Any]] = []
        samples = 0
        kept: deque[_Entry[Any, Any]] = deque()
        now = time.monotonic()
        dropped: list[_Entry[Any, Any]] = []
        for entry in self._pending:
            if entry.future.done() or entry.deadline_s <= now:
                dropped.append(entry)
            elif entry.key == key and (not batch or samples + entry.size <= self._max_batch):
                batch.append(entry)
                samples += entry.size
            else:
                kept.append(entry)
        self._pending = kept
        if dropped:
            self._hand_back(dropped, [DetectorFailed("budget") for _ in dropped])
        if batch:
            self._on_batch(samples, len(kept) + self._inbox.qsize())
        return batch

    def _receive(self) -> bool:
        """Move the inbox into `_pending`, waiting up to the window for requests on their way."""
        until = time.monotonic() + self._window_s
        while True:
            try:
                while (entry := self._inbox.get_nowait()) is not None:
                    self._pending.append(entry)
                return False
            except queue.Empty:
                pass
            left = until - time.monotonic()
            full = sum(entry.size for entry in self._pending) >= self._max_batch
            if left <= 0 or full or self._company() <= len(self._pending):
                return True
            try:
                entry = self._inbox.get(timeout=left)
            except queue.Empty:
                return True
            if entry is None:
                return False
            self._pending.append(entry)

    def _hand_back(self, batch: Collection[_Entry[Any, Any]], results: Sequence[object]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, batch, results)
        except RuntimeError:  # the loop closed first: nobody waits any more
            return

    # -- event loop ----------------------------------------------------------------------------

    def _deliver(self, batch: Collection[_Entry[Any, Any]], results: Sequence[object]) -> None:
        self._waiting -= len(batch)
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                value, started_s = cast("tuple[object, float]", result)
                entry.future.set_result((value, max(0.0, started_s - entry.queued_s)))


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(DetectorFailed("budget"))


def _run(batch: Sequence[_Entry[Any, Any]]) -> list[object]:
    """Run a batch; if it raises, run its entries one by one so that only the culprit fails."""
    started_s = time.monotonic()
    try:
        results = list(batch[0].run([entry.item for entry in batch]))
        if len(results) != len(batch):
            raise DetectorFailed("error", f"{len(results)} results for {len(batch)} entries")
    # One of the two places that catch everything: a detector is third-party code to this thread,
    # and an exception that ended the thread would hang every request after it.
    except Exception as error:  # noqa: BLE001
        if len(batch) > 1:
            return [outcome for entry in batch for outcome in _run_alone(entry)]
        return [_told(error)]
    return [r if isinstance(r, Exception) else (r, started_s) for r in results]


def run_here(run: Callable[[Item], Result], item: Item) -> Result:
    """The result of one item, run on the caller's thread.

    Raises:
        DetectorFailed: whatever `run` raised.
    """
    try:
        return run(item)
    except Exception as error:  # noqa: BLE001 (as in `_run`: a detector may raise anything)
        failure = _told(error)
        raise failure from failure.__cause__


def _told(error: Exception) -> DetectorFailed:
    if isinstance(error, DetectorFailed):
        return error
    failure = DetectorFailed("error", f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _run_alone(entry: _Entry[Any, Any]) -> list[object]:
    if entry.future.done() or entry.deadline_s <= time.monotonic():
        return [DetectorFailed("budget")]  # the failed batch took its time
    return _run([entry])
