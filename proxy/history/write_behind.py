"""What is to be remembered, told to the server in the background and in order.

The queue is bounded and loses its oldest entries first: those that come after an outage are worth
more than those from before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from proxy.history.access import CONNECT_S
from proxy.history.keyspace import HEAD, SHARDS, Bytes, Keyspace, script
from proxy.history.link import FIRST_PAUSE_S, LONGEST_PAUSE_S, Link, Unreachable
from proxy.history.store import Handles, Keys, Owners, Records

LINGER_S = 0.005
"""Requests of so long are told together: a call costs the event loop more than its entries do."""
AT_ONCE = 8
"""Queries in one call: the server does nothing else meanwhile, and lookups wait for it."""
AMENDABLE = 65_536
"""The last so many remembered queries can be amended; their answers come within milliseconds."""
_UNKNOWN = 0xFFFFFFFF


class _Queries(NamedTuple):
    width: int
    rows: Bytes
    """(B, ...) as `Keyspace.queries` makes them."""
    handles: Handles

    @property
    def size(self) -> int:
        return len(self.rows)

    def after(self, first: int) -> _Queries:
        return _Queries(self.width, self.rows[first:], self.handles[first:])


class _Amendments(NamedTuple):
    handles: Handles
    records: Records

    @property
    def size(self) -> int:
        return len(self.handles)

    def after(self, first: int) -> _Amendments:
        return _Amendments(self.handles[first:], self.records[first:])


class _Mark(NamedTuple):
    command: tuple[str | bytes | int, ...]
    size: int = 1

    def after(self, first: int) -> _Mark:
        return self


class WriteBehind:
    """The queue and what empties it.

    Args:
        link: the server.
        keyspace: where it keeps things.
        clock: seconds since 1970.
        capacity: most queries remembered in an epoch; the oldest make room.
        per_owner_minute: most queries remembered of one owner a minute; past it one in 16 is.
        most_queued: most entries that wait to be told.
        on_degraded: told why entries were lost.
    """

    def __init__(
        self,
        link: Link,
        keyspace: Keyspace,
        *,
        clock: Callable[[], float],
        capacity: int,
        per_owner_minute: int,
        most_queued: int,
        on_degraded: Callable[[str], None],
    ) -> None:
        self._link = link
        self._keyspace = keyspace
        self._clock = clock
        self._rows = keyspace.rows_for(capacity)
        self._per_owner_minute = per_owner_minute
        self._most_queued = most_queued
        self._on_degraded = on_degraded
        self._remember = script("remember")
        self._amend = script("amend")
        self._queue: deque[_Queries | _Amendments | _Mark] = deque()
        self._work = asyncio.Event()
        self.queued = 0
        """Entries that wait, or are on their way."""
        self._next = 1
        self._salt = secrets.randbits(32)
        self._handles = np.zeros(AMENDABLE, np.uint64)
        self._heads = np.zeros(AMENDABLE, HEAD)
        self._numbers = np.full(AMENDABLE, _UNKNOWN, np.uint32)
        self._epochs = np.zeros(AMENDABLE, np.int64)

    def remember(self, keys: Keys, owners: Owners, records: Records) -> Handles:
        """Queue queries; what they can be amended by."""
        handles = np.arange(self._next, self._next + len(keys), dtype=np.uint64)
        self._next += len(keys)
        at = handles % np.uint64(AMENDABLE)
        heads = np.zeros(len(keys), HEAD)
        heads["time"] = int(self._clock())
        heads["nonce"] = handles.astype(np.uint32) ^ np.uint32(self._salt)
        self._handles[at], self._heads[at], self._numbers[at] = handles, heads, _UNKNOWN
        rows = self._keyspace.queries(keys, owners, self._keyspace.slots(heads, records))
        self._put(_Queries(keys.shape[1], rows, handles))
        return handles

    def amend(self, handles: Handles, records: Records) -> None:
        """Queue new records for queries that can still be amended."""
        known = self._handles[handles % np.uint64(AMENDABLE)] == handles
        if known.any():
            self._put(_Amendments(handles[known], records[known]))

    def mark(self, owner: int, value: float, ttl_s: float) -> None:
        """Queue a mark on an owner."""
        key = self._keyspace.marks.encode() + struct.pack("<Q", owner)
        if value == 0:
            self._put(_Mark(("UNLINK", key)))
        else:
            data = struct.pack("<d", value)
            self._put(_Mark(("SET", key, data, "PX", max(1, round(1000 * ttl_s)))))

    async def drain(self, limit_s: float) -> None:
        """Wait until everything is told, the link is down or time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.queued and self._link.up.is_set():  # noqa: ASYNC110 (either may end it)
                    await asyncio.sleep(LINGER_S)

    def forget(self) -> None:
        """Lose what has not been told yet."""
        self.queued -= sum(entry.size for entry in self._queue)
        self._queue.clear()

    async def run(self) -> None:
        """Tell the server until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._work.wait()
            await asyncio.sleep(LINGER_S)
            await self._link.up.wait()
            if await self._tell():
                pause_s = FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _put(self, entry: _Queries | _Amendments | _Mark) -> None:
        if entry.size == 0:
            return
        self._queue.append(entry)
        self.queued += entry.size
        self._work.set()
        if self.queued > self._most_queued:
            self._shorten()
            self._on_degraded("full")

    def _shorten(self) -> None:
        """Give up what has waited longest, until no more waits than may."""
        while self._queue and (excess := self.queued - self._most_queued) > 0:
            entry = self._queue.popleft()
            self.queued -= min(excess, entry.size)
            if entry.size > excess:
                self._queue.appendleft(entry.after(excess))

    async def _tell(self) -> bool:
        """Tell all that waits; False once the server refused or could not be reached."""
        while self._queue and self._link.up.is_set():
            entry = self._take()
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._send(entry)
            except OutOfMemoryError:
                return self._lost("out_of_memory")
            except ReadOnlyError:  # a primary that was demoted: its name may stand for another now
                await self._link.leave()
                return self._lost("error")
            except ResponseError:
                return self._lost("error")
            except Unreachable:
                return self._lost("unreachable")
            except TimeoutError:
                return self._lost("timeout")
            finally:
                self.queued -= entry.size
        if not self._queue:
            self._work.clear()
        return True

    def _lost(self, reason: str) -> bool:
        self._on_degraded(reason)
        return False

    def _take(self) -> _Queries | _Amendments | _Mark:
        """The next entry, joined with those after it that can go in the same call."""
        entry = self._queue.popleft()
        if not isinstance(entry, _Queries):
            return entry
        parts, size = [entry], entry.size
        while size < AT_ONCE and self._queue:
            after = self._queue[0]
            if not isinstance(after, _Queries) or after.width != entry.width:
                break
            parts.append(after)
            size += after.size
            self._queue.popleft()
        rows = np.concatenate([part.rows for part in parts])
        handles = np.concatenate([part.handles for part in parts])
        if size > AT_ONCE:
            self._queue.appendleft(_Queries(entry.width, rows[AT_ONCE:], handles[AT_ONCE:]))
        return _Queries(entry.width, rows[:AT_ONCE], handles[:AT_ONCE])

    async def _send(self, entry: _Queries | _Amendments | _Mark) -> None:
        if isinstance(entry, _Queries):
            await self._send_queries(entry)
        elif isinstance(entry, _Amendments):
            await self._send_amendments(entry)
        else:
            await self._link.call(*entry.command)

    async def _send_queries(self, entry: _Queries) -> None:
        now, space = self._clock(), self._keyspace
        epoch = space.epoch(now)
        answer = await self._link.run(
            self._remember,
            [space.epoch_key(epoch), space.counts_key(now), space.over_key(now)],
            entry.rows.tobytes(),
            entry.width,
            space.slot,
            SHARDS,
            space.ttl_s,
            space.epoch_left_s(now),
            self._per_owner_minute,
            self._rows,
            secrets.token_hex(3),
        )
        at = entry.handles % np.uint64(AMENDABLE)
        mine = self._handles[at] == entry.handles
        self._numbers[at[mine]] = np.frombuffer(answer, "<u4")[mine]
        self._epochs[at[mine]] = epoch

    async def _send_amendments(self, entry: _Amendments) -> None:
        space = self._keyspace
        at = entry.handles % np.uint64(AMENDABLE)
        told = (self._handles[at] == entry.handles) & (self._numbers[at] != _UNKNOWN)
        at = at[told]
        if not len(at):
            return
        epochs, which = np.unique(self._epochs[at], return_inverse=True)
        slots = space.slots(self._heads[at], entry.records[told])
        places = np.zeros(len(at), np.dtype([("epoch", "u1"), ("number", "<u4")]))
        places["epoch"], places["number"] = which + 1, self._numbers[at]
        rows = np.concatenate([places.view(np.uint8).reshape(len(at), 5), slots], axis=1)
        keys = [space.epoch_key(int(epoch)) for epoch in epochs]
        await self._link.run(self._amend, keys, rows.tobytes(), space.slot)
