"""A memory of queries on this machine: a few numpy arrays of fixed size, no objects per query.

It knows keys, owners and records as numbers; not images, principals or what a record means.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from proxy.history.fair_slots import FairSlots
from proxy.history.key_index import SLOT_BITS, KeyIndex
from proxy.history.memory import Memory
from proxy.history.store import MOST, Found, Handles, Keys, Owners, Records

MOST_KEYS = 64
MOST_MARKS = 65_536
"""Owners with a mark at a time; a mark more takes the place of the oldest."""

_SLOT = np.uint64((1 << SLOT_BITS) - 1)
_HANDLE = np.uint64(SLOT_BITS)
_KEY_BITS, _KEY = np.uint64(6), np.uint64(63)
_ROW = np.uint64(SLOT_BITS + 6)


class LocalStore:
    """Remembers queries in this process, or in all that share its memory; a `FingerprintStore`.

    One key leads to the eight newest queries that have it, so that what everybody asks costs no
    more than what nobody asks. A query is therefore not found through a key that eight newer ones
    have, and `shared` then lacks that key. A key given twice in a row counts at its first place.

    Nothing here waits: what is called without an `await` on something else between is one step
    for the event loop. The memory is taken as it is needed: 4 MiB with the first queries; about
    460 bytes a query of 24 keys and 180 bytes of record when full, 430 to 660 before.

    Args:
        capacity: most queries remembered, 1 to 2**24. When there are more, who has most of them
            loses the oldest (`FairSlots`).
        record: type of a record, without Python objects.
        keys: K, columns of every `Keys`; 1 to 64.
        ttl_s: how long a query is remembered.
        clock: seconds; never runs backwards.
        salt: spreads owners for fairness; the memory's secret unless it is given.
        memory: where it is kept. Where others have it too, `lookup` is for a shared turn at it,
            and all else for an exclusive one.

    Raises:
        ValueError: one of these is out of its range.
    """

    def __init__(
        self,
        capacity: int,
        record: npt.DTypeLike,
        keys: int,
        *,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
        salt: int | None = None,
        memory: Memory | None = None,
    ) -> None:
        if not 1 <= capacity <= 1 << SLOT_BITS:
            raise ValueError(f"capacity must be from 1 to {1 << SLOT_BITS}, not {capacity}")
        if not 1 <= keys <= MOST_KEYS:
            raise ValueError(f"keys must be from 1 to {MOST_KEYS}, not {keys}")
        if np.dtype(record).hasobject:
            raise ValueError("a record may not hold Python objects")
        self._capacity, self._keys, self._record = capacity, keys, np.dtype(record)
        self._ttl_s, self._clock = ttl_s, clock
        memory = memory or Memory()
        salt = int.from_bytes(memory.secret[:8], "little") if salt is None else salt
        # Pages of zeros that nothing was written to take no memory.
        self._records = memory.array(capacity, self._record)
        self._handles = memory.array(capacity, np.uint64)
        self._remembered = memory.array(1, np.uint64)  # ever: handles are never given out twice
        self._slots = FairSlots(capacity, salt=salt, memory=memory)
        self._index = KeyIndex(capacity, keys, ages=self._handles, memory=memory)
        self._marks: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        """Queries remembered, with some that are too old to be found."""
        return len(self._slots)

    async def lookup(self, keys: Keys, owners: Owners) -> Found:
        """Earlier queries that share keys with these; remembers nothing."""
        keys, now = self._checked(keys), self._clock()
        marks = np.array([self._mark(owner, now) for owner in owners.tolist()], np.float64)
        used = np.flatnonzero(keys)
        places, slots = self._index.find(keys.ravel()[used])
        fresh = self._slots.since[slots] > now - self._ttl_s
        rows, shared, slots = self._best(used[places[fresh]], slots[fresh])
        return Found(rows, shared, self._records[slots], marks)

    def remember(self, keys: Keys, owners: Owners, records: Records) -> Handles:
        """Remember queries; those without any key are not kept."""
        keys, now = self._checked(keys), self._clock()
        if records.dtype != self._record:
            raise ValueError(f"records must be {self._record}, not {records.dtype}")
        handles = np.zeros(len(keys), np.uint64)
        rows = np.flatnonzero(keys.any(axis=1))
        slots = self._slots.take(owners[rows], now=now, expired=now - self._ttl_s)
        # First the old queries go, last come the new ones' keys: what a process that dies in
        # between leaves half done is not found.
        self._index.renew(slots)
        serials = np.arange(1, 1 + len(rows), dtype=np.uint64) + self._remembered
        self._remembered += np.uint64(len(rows))
        handles[rows] = serials << _HANDLE | slots.astype(np.uint64)
        self._handles[slots] = handles[rows]
        kept = self._handles[slots] == handles[rows]  # a later one may have displaced an earlier
        rows, slots = rows[kept], slots[kept]
        self._records[slots] = records[rows]
        self._index.reserve(self._slots.touched)
        row, column = np.nonzero(keys[rows])
        self._index.insert(keys[rows[row], column], slots[row])
        return handles

    def amend(self, handles: Handles, records: Records) -> None:
        """Replace the records of remembered queries; those forgotten since stay forgotten."""
        slots = (handles & _SLOT).view(np.intp)
        kept = slots < self._capacity
        kept[kept] = self._handles[slots[kept]] == handles[kept]
        kept &= handles != 0
        slots = slots[kept]
        self._handles[slots] = 0  # while they are written, for `repair`
        self._records[slots] = records[kept]
        self._handles[slots] = handles[kept]

    def mark(self, owner: int, value: float, ttl_s: float) -> None:
        """Put a mark on an owner for so many seconds, in this process; 0 removes it."""
        self._marks.pop(owner, None)
        if value:
            if len(self._marks) == MOST_MARKS:
                del self._marks[next(iter(self._marks))]
            self._marks[owner] = (value, self._clock() + ttl_s)

    async def clear(self) -> None:
        """Forget everything."""
        self._handles[: self._slots.touched] = 0
        self._slots.clear()
        self._index.clear()
        self._marks.clear()

    def repair(self) -> None:
        """Put right what a process left that died in its turn; what it wrote then is forgotten."""
        self._slots.repair()
        self._index.renew(np.flatnonzero(self._handles[: self._slots.touched] == 0))

    def _mark(self, owner: int, now: float) -> float:
        value, until = self._marks.get(owner, (0.0, now))
        return value if now < until else 0.0

    def _checked(self, keys: Keys) -> Keys:
        """The keys, with 0 for those that came before in their row."""
        if keys.ndim != 2 or keys.shape[1] != self._keys:
            raise ValueError(f"keys must be (B, {self._keys}), not {keys.shape}")
        ordered = np.sort(keys, axis=1)
        if not ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != 0)).any():
            return np.ascontiguousarray(keys)
        equal = keys[:, :, None] == keys[:, None, :]  # (B, K, K)
        return np.where(np.tril(equal, -1).any(axis=2), 0, keys)

    def _best(
        self, places: npt.NDArray[np.intp], slots: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
        """Gather hits, places in (B, K) and slots, into earlier queries of each row: the best."""
        row, key = np.divmod(places.view(np.uint64), np.uint64(self._keys))
        hits = np.sort(row << _ROW | slots.view(np.uint64) << _KEY_BITS | key)
        pairs = hits >> _KEY_BITS
        starts = np.flatnonzero(np.diff(pairs, prepend=~pairs[:1]))
        if not len(starts):
            return np.empty(0, np.intp), np.empty(0, np.uint64), np.empty(0, np.intp)
        shared = np.bitwise_or.reduceat(np.uint64(1) << (hits & _KEY), starts)
        counts = np.diff(starts, append=len(hits))
        rows = (hits[starts] >> _ROW).view(np.intp)
        found = (pairs[starts] & _SLOT).view(np.intp)
        order = np.lexsort((~self._handles[found], -counts, rows))
        first = np.searchsorted(rows, rows)  # rows ascend, so their order is their own
        order = order[np.arange(len(rows)) - first < MOST]
        return rows[order], shared[order], found[order]
