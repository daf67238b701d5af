"""Who gives way when the memory is full: slots, lent to owners and taken back fairly.

It knows who holds how many slots and since when, and not what is kept in them.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.intp]

_QUEUE_LENGTH = 256  # at least, when all are equally long, but for the fewest and the most queues
_FEWEST_QUEUES, _MOST_QUEUES = 16, 1024
_NOWHERE = -1


class FairSlots:
    """Slots of a memory of fixed size; once all are lent, whoever holds most gives one back.

    Owners are spread over queues by a secret of this process, one for 256 slots and at most 1024.
    When no slot is free, the longest queue gives back its oldest (longest queue drop: Suter,
    Lakshman, Stiliadis, Choudhury, INFOCOM 1998). Someone alone may hold all of it, but whoever
    floods it holds the longest queue soon, and from then on displaces only what is in that queue:
    one in 1024 of the other owners' at 262,144 slots and more.

    Known adaptive break: a flood under names enough to fill every queue displaces everybody, like
    in a plain queue: it costs as many queries as there are slots, and leaves everybody the newest
    slots of a queue's fair share, 256 or more.

    Slots held for longer than the caller allows are given back before any other.

    Args:
        capacity: slots in all.
        salt: spreads the owners; nobody outside may know it.
    """

    def __init__(self, capacity: int, *, salt: int | None = None) -> None:
        self._capacity = capacity
        self._salt = np.uint64(secrets.randbits(64) if salt is None else salt)
        self.since = np.zeros(capacity)
        """(capacity,) when each slot was lent, by the caller's clock."""
        self.touched = 0
        """Slots that were ever lent: those from 0 up to this."""
        self._next = np.zeros(capacity, np.int32)
        self._free: list[int] = []
        queues = min(max(capacity // _QUEUE_LENGTH, _FEWEST_QUEUES), _MOST_QUEUES)
        self._first = [_NOWHERE] * queues
        self._last = [_NOWHERE] * queues
        self._oldest = np.full(queues, math.inf)  # since when each queue's first is lent
        self._lengths = np.zeros(queues, np.int64)

    def __len__(self) -> int:
        """Slots lent now."""
        return self.touched - len(self._free)

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

    def _give_back(self, most: int, expired: float) -> None:
        """Free slots lent too long ago: the time for it is bounded, the rest waits its turn."""
        for queue in np.flatnonzero(self._oldest <= expired).tolist():
            while most and self._oldest[queue] <= expired:
                self._free.append(self._pop(queue))
                most -= 1

    def _vacant(self) -> int:
        if self._free:
            return self._free.pop()
        if self.touched < self._capacity:
            self.touched += 1
            return self.touched - 1
        return self._pop(int(self._lengths.argmax()))

    def _pop(self, queue: int) -> int:
        slot = self._first[queue]
        self._lengths[queue] -= 1
        if self._lengths[queue]:
            self._first[queue] = following = int(self._next[slot])
            self._oldest[queue] = self.since[following]
        else:
            self._oldest[queue] = math.inf
        return slot

    def _push(self, queue: int, slot: int, now: float) -> None:
        self.since[slot] = now
        if self._lengths[queue]:
            self._next[self._last[queue]] = slot
        else:
            self._first[queue] = slot
            self._oldest[queue] = now
        self._last[queue] = slot
        self._lengths[queue] += 1
