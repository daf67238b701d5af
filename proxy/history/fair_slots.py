"""Who gives way when the memory is full: slots, lent to owners and taken back fairly.

It knows who holds how many slots and since when, and not what is kept in them.
"""

from __future__ import annotations

import math
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from proxy.history.memory import Memory

Slots = npt.NDArray[np.intp]

_QUEUE_LENGTH = 256  # at least, when all are equally long, but for the fewest and the most queues
_FEWEST_QUEUES, _MOST_QUEUES = 16, 1024
_TOUCHED, _FREE, _FIRST_FREE = range(3)


class FairSlots:
    """Slots of a memory of fixed size; once all are lent, whoever holds most gives one back.

    Owners are spread over queues by a secret, one for 256 slots and at most 1024.
    When no slot is free, the longest queue gives back its oldest (longest queue drop: Suter,
    Lakshman, Stiliadis, Choudhury, INFOCOM 1998). Someone alone may hold all of it, but whoever
    floods it holds the longest queue soon, and from then on displaces only what is in that queue:
    one in 1024 of the other owners' at 262,144 slots and more.

    Known adaptive break: a flood under names enough to fill every queue displaces everybody, like
    in a plain queue: it costs as many queries as there are slots, and leaves everybody the newest
    slots of a queue's fair share, 256 or more.

    Slots held for longer than the caller allows are given back before any other.

    All of it is in arrays, and what each slot is lent for is said twice, so that `repair` finds
    the queues again after a process that shares them died while it changed them.

    Args:
        capacity: slots in all.
        salt: spreads the owners; nobody outside may know it.
        memory: where it is kept.
    """

    def __init__(
        self, capacity: int, *, salt: int | None = None, memory: Memory | None = None
    ) -> None:
        memory = memory or Memory()
        self._capacity = capacity
        self._salt = np.uint64(secrets.randbits(64) if salt is None else salt)
        queues = min(max(capacity // _QUEUE_LENGTH, _FEWEST_QUEUES), _MOST_QUEUES)
        self.since = memory.array(capacity, np.float64)
        """(capacity,) when each slot was lent, by the caller's clock."""
        self._lent = memory.array(capacity, np.int16)  # the queue it is in + 1; 0: not lent
        self._next = memory.array(capacity, np.int32)  # in its queue, or among those free
        self._first = memory.array(queues, np.int32)
        self._last = memory.array(queues, np.int32)
        self._lengths = memory.array(queues, np.int64)
        self._oldest = memory.array(queues, np.float64)  # since when each queue's first is lent
        self._counts = memory.array(3, np.int64)
        if not self.touched:
            self._oldest[:] = math.inf
        # Single numbers of an array are read three times as fast this way.
        self._count, self._following = self._counts.data, self._next.data
        self._head, self._tail = self._first.data, self._last.data
        self._length = self._lengths.data
        self._time: Any = self.since.data  # floats, which its type does not know

    @property
    def touched(self) -> int:
        """Slots that were ever lent: those from 0 up to this."""
        return int(self._counts[_TOUCHED])

    def __len__(self) -> int:
        """Slots lent now."""
        return int(self._counts[_TOUCHED] - self._counts[_FREE])

    def take(self, owners: npt.NDArray[np.uint64], *, now: float, expired: float) -> Slots:
        """Lend a slot to each owner, in their order; a later one may displace an earlier one.

        Args:
            owners: (B,) hashes; one owner may come several times.
            now: the time by the caller's clock.
            expired: what was lent at this time or earlier is given back first.

        Returns:
            (B,) slots.
        """
        self._give_back(2 * len(owners), expired)
        mixed = (owners ^ self._salt) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ mixed >> np.uint64(32)) * np.uint64(0xBF58476D1CE4E5B9)
        queues: list[int] = ((mixed >> np.uint64(32)) % np.uint64(len(self._first))).tolist()
        slots = np.empty(len(queues), np.intp)
        for row, queue in enumerate(queues):
            slots[row] = slot = self._vacant()
            self._push(queue, slot, now)
        return slots

    def clear(self) -> None:
        """Take all slots back."""
        self._lent[: self.touched] = 0
        self._counts[:] = self._lengths[:] = 0
        self._oldest[:] = math.inf

    def repair(self) -> None:
        """Make the queues anew from what each slot says: 12 ms for 200,000 slots."""
        touched = self.touched
        lent = self._lent[:touched]
        slots = np.flatnonzero(lent)
        slots = slots[np.lexsort((self.since[slots], lent[slots]))]
        queues = lent[slots] - 1
        starts = np.flatnonzero(np.diff(queues, prepend=-1))
        self._next[slots[:-1]] = slots[1:]
        self._lengths[:] = np.bincount(queues, minlength=len(self._lengths))
        self._oldest[:] = math.inf
        self._first[queues[starts]] = slots[starts]
        self._oldest[queues[starts]] = self.since[slots[starts]]
        self._last[queues[starts]] = slots[np.append(starts[1:], len(slots))[: len(starts)] - 1]
        free = np.flatnonzero(lent == 0)
        self._next[free[:-1]] = free[1:]
        self._counts[_FREE] = len(free)
        self._counts[_FIRST_FREE] = free[0] if len(free) else 0

    def _give_back(self, most: int, expired: float) -> None:
        """Free slots lent too long ago: the time for it is bounded, the rest waits its turn."""
        for queue in np.flatnonzero(self._oldest <= expired).tolist():
            while most and self._oldest[queue] <= expired:
                slot = self._pop(queue)
                self._following[slot] = self._count[_FIRST_FREE]
                self._count[_FIRST_FREE] = slot
                self._count[_FREE] += 1
                most -= 1

    def _vacant(self) -> int:
        if self._count[_FREE]:
            slot: int = self._count[_FIRST_FREE]
            self._count[_FIRST_FREE] = self._following[slot]
            self._count[_FREE] -= 1
            return slot
        if self._count[_TOUCHED] < self._capacity:
            self._count[_TOUCHED] += 1
            return self._count[_TOUCHED] - 1
        return self._pop(int(self._lengths.argmax()))

    def _pop(self, queue: int) -> int:
        slot: int = self._head[queue]
        self._lent[slot] = 0
        self._length[queue] -= 1
        if self._length[queue]:
            self._head[queue] = following = self._following[slot]
            self._oldest[queue] = self._time[following]
        else:
            self._oldest[queue] = math.inf
        return slot

    def _push(self, queue: int, slot: int, now: float) -> None:
        self._time[slot] = now
        if self._length[queue]:
            self._following[self._tail[queue]] = slot
        else:
            self._head[queue] = slot
            self._oldest[queue] = now
        self._tail[queue] = slot
        self._length[queue] += 1
        self._lent[slot] = queue + 1
