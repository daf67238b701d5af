"""From keys to the queries that have them: a hash table in one array, searched a batch at a time.

It knows slots (where a query is kept), not what is kept there, nor whose it is, nor for how long.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from proxy.history.memory import Memory

Words = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.intp]

SLOT_BITS = 24
PER_KEY = 8
"""Most queries found through one key: the newest that have it."""

_WAYS = 8  # entries to a bucket: one cache line
_LOAD = 0.75  # full share of the entries; see KeyIndex
_HASTE = 8  # buckets split for one that is needed
_LEAST_BUCKETS = 128
_MOST_ROOTS = 1 << 16  # buckets of the smallest table: 4 MiB
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_BYTES = np.uint64(0x0101010101010101)
# Odd multipliers with well mixed bits: the golden ratio, and two of SplitMix64's (Steele, Lea,
# Flood, OOPSLA 2014).
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_DEAD, _OTHER = np.uint64(1 << 62), np.uint64(1 << 63)  # order in which entries are overwritten


class KeyIndex:
    """A set-associative hash table of keys, 8 bytes a key, from which nothing is ever deleted.

    An entry packs 32 bits of the key (its tag) and the 32 bits of a query's id: its slot and the
    slot's turn. The entry is alive while that id is still its slot's; giving the slot a new id
    kills all entries of the query that had it, at no cost.

    A key may lie in either of two buckets, and goes to the emptier: where one choice would lose a
    twentieth of the keys to buckets that are full, two lose one in 1400, of the oldest (Azar,
    Broder, Karlin, Upfal, SIAM J. Comput. 29, 1999; measured 2026-11 at a load of 0.75 after four
    times the capacity). An entry is put in place of the oldest of its own key where that key has
    `PER_KEY` already, else of a dead one, else of the oldest.

    The table grows by a few buckets with every call (linear hashing, Litwin, VLDB 1980): no call
    has to rehash everything, and buckets not reached yet take no memory. A bucket is split by a
    bit of the tag, so that no key needs to be known again; entries keep their place in it. Once
    the load is reached the number of buckets doubles while the entries grow by an eighth, since
    buckets yet to be split are the fullest.

    Two keys are taken for one when 26 bits of their tags and one of their buckets agree, which
    gives about one query of 24 keys in 200,000 a false candidate.

    Args:
        capacity: queries, 1 to 2**24.
        keys: per query, 1 to 64.
        ages: (capacity,) of each slot; larger is younger, the last two bits aside. Kept up to date
            by the caller.
        memory: where it is kept. A process that shares it and dies while it changes it leaves keys
            behind that lead nowhere, never one that leads to another query.
    """

    def __init__(
        self, capacity: int, keys: int, *, ages: Words, memory: Memory | None = None
    ) -> None:
        memory = memory or Memory()
        self._ages = ages
        self._bits = max(1, (capacity - 1).bit_length())
        self._mask = np.uint64((1 << self._bits) - 1)
        self._turn = np.uint32(1 << self._bits)
        self._ids = memory.array(capacity, np.uint32)
        if not self._ids[0]:
            self._ids[0] = self._turn  # 0 is an empty entry, never an id
        self._buckets_a_query = keys / (_WAYS * _LOAD)
        full = max(_LEAST_BUCKETS, int(capacity * self._buckets_a_query) + 1)
        levels = ((full - 1) // _MOST_ROOTS).bit_length()
        self._roots = -(-full // (1 << levels))
        # Pages of zeros that nothing was written to take no memory.
        self._table = memory.array((self._roots << levels, _WAYS), np.uint64)
        self._split_off = memory.array(1, np.int64)  # buckets, beside those there are at first

    @property
    def _size(self) -> int:
        return self._roots + int(self._split_off[0])

    @property
    def _level(self) -> int:
        """How often the number of buckets has doubled."""
        return (self._size // self._roots).bit_length() - 1

    def clear(self) -> None:
        """Forget all keys."""
        self._table[: self._size] = 0
        self._split_off[0] = 0

    def find(self, keys: Words) -> tuple[Slots, Slots]:
        """Which queries have which of N keys.

        Returns:
            Two of M numbers: places in `keys`, ascending, and slots. A pair may come twice.
        """
        hashes = _mixed(keys)
        entries = self._entries(self._homes(hashes))
        hits = np.flatnonzero(entries >> _HALF == (hashes & _LOW)[:, None])
        ids = entries.ravel()[hits] & _LOW
        alive = self._alive(ids)
        return hits[alive] // (2 * _WAYS), (ids[alive] & self._mask).view(np.intp)

    def renew(self, slots: Slots) -> None:
        """Give slots new ids: from now on nothing is found there, until it is inserted."""
        slots32 = slots.astype(np.uint32)
        ids = self._next_ids(slots32)
        if (ids < self._turn).any():  # the turn of a slot overflows
            self._sweep()
            ids = self._next_ids(slots32)
        self._ids[slots] = ids

    def insert(self, keys: Words, slots: Slots) -> None:
        """Note that queries have keys: N pairs, each once, the youngest query's last."""
        hashes = _mixed(keys)
        order = np.argsort(hashes, kind="stable")
        hashes, slots = hashes[order], slots[order]
        recent = _following(hashes) <= PER_KEY
        hashes, slots = hashes[recent], slots[recent]
        table = self._table.ravel()
        # Two pairs may want the same place: the last has it, the others try again.
        while hashes.size:
            entries = (hashes & _LOW) << _HALF | self._ids[slots]
            places = self._places(hashes)
            table[places] = entries
            left = table[places] != entries
            hashes, slots = hashes[left], slots[left]

    def reserve(self, queries: int) -> None:
        """Make room for so many queries in all, if there is not; never more than `capacity`."""
        needed = int(queries * self._buckets_a_query) + 1
        while needed > (whole := self._roots << self._level) and self._size < len(self._table):
            size = min(2 * whole, whole + _HASTE * (needed - whole))
            self._split(whole, max(self._size, size))
            if self._size < 2 * whole:
                return

    def _split(self, whole: int, size: int) -> None:
        """Grow up to `size` buckets by halving buckets of the current level, `whole` in all."""
        parents = self._table[self._size - whole : size - whole]
        children = self._table[self._size : size]
        moves = parents >> np.uint64(32 + self._level) & np.uint64(1)
        np.multiply(parents, moves, out=children)
        parents -= children
        self._split_off[0] = size - self._roots

    def _homes(self, hashes: Words) -> Slots:
        """The two buckets where each key may lie, (N, 2)."""
        roots = np.uint64(self._roots)
        first = (hashes >> _HALF) * roots >> _HALF
        step = (hashes * _MIX[2] >> _HALF) * (roots - np.uint64(1)) >> _HALF
        homes = np.stack([first, (first + step + np.uint64(1)) % roots], axis=1)
        branch = hashes & np.uint64((2 << self._level) - 1)
        homes += (branch * roots)[:, None]
        homes -= np.uint64(self._roots << self._level) * (homes >= np.uint64(self._size))
        buckets: Slots = homes.view(np.intp)
        return buckets

    def _entries(self, homes: Slots) -> Words:
        """Both buckets of each key, (N, 16)."""
        return self._table.take(homes.ravel(), axis=0).reshape(len(homes), 2 * _WAYS)

    def _alive(self, ids: Words) -> npt.NDArray[np.bool_]:
        alive: npt.NDArray[np.bool_] = self._ids.take((ids & self._mask).view(np.intp)) == ids
        return alive

    def _places(self, hashes: Words) -> Slots:
        """Where in the table an entry for each of these keys, equal ones together, should go."""
        homes = self._homes(hashes)
        entries = self._entries(homes)
        alive = self._alive(entries & _LOW)
        same = alive & (entries >> _HALF == (hashes & _LOW)[:, None])
        crowd = (alive.view(np.uint64) * _BYTES >> np.uint64(56)).view(np.intp)  # (N, 2)
        rows = np.arange(len(hashes))
        side = (crowd[:, 1] < crowd[:, 0]).astype(np.intp)
        ways = alive.reshape(-1, _WAYS)[2 * rows + side].argmin(axis=1) + _WAYS * side
        following = _following(hashes)
        preceding = _following(hashes[::-1])[::-1] - 1
        hard = (following + preceding > 1) | (crowd[rows, side] == _WAYS)
        hard[np.flatnonzero(same) // (2 * _WAYS)] = True
        if hard.any():
            order = self._order(entries[hard], alive[hard], same[hard], crowd[hard])
            mine = same[hard].sum(axis=1)
            rank = preceding[hard]
            over = np.maximum(0, mine + rank + following[hard] - PER_KEY)
            pick = np.where(rank < over, rank, rank - over + mine)
            ways[hard] = order[np.arange(len(order)), pick]
        places: Slots = homes[rows, ways // _WAYS] * _WAYS + ways % _WAYS
        return places

    def _order(
        self,
        entries: Words,
        alive: npt.NDArray[np.bool_],
        same: npt.NDArray[np.bool_],
        crowd: Slots,
    ) -> Slots:
        """Ways by what should be overwritten first: own key, dead, others; the oldest first."""
        ages = self._ages.take((entries & self._mask).view(np.intp)) >> np.uint64(2)
        room = _DEAD | crowd.view(np.uint64).repeat(_WAYS, axis=1)  # the emptier bucket first
        return np.where(alive, np.where(same, ages, ages | _OTHER), room).argsort(axis=1)

    def _next_ids(self, slots: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        ids = self._ids[slots]
        return (ids & ~np.uint32(self._mask)) + self._turn | slots

    def _sweep(self) -> None:
        """Clear dead entries and start all turns anew: one pass over the table in many turns.

        It takes 0.2 s at 1,000,000 queries of 24 keys, where a slot has 4095 turns.
        """
        for start in range(0, self._size, 1 << 12):
            part = self._table[start : min(start + (1 << 12), self._size)]
            alive = self._alive(part & _LOW)
            part &= ~_LOW | self._mask
            part |= np.uint64(self._turn)
            part *= alive
        # Each id at once, for whoever dies here: one without a turn would be given out again.
        self._ids[:] = self._ids & np.uint32(self._mask) | self._turn


def _mixed(keys: Words) -> Words:
    """One to one, with every bit of a key in every part of its hash."""
    hashes: Words = keys * _MIX[0]
    hashes ^= hashes >> _HALF
    hashes *= _MIX[1]
    hashes ^= hashes >> _HALF
    return hashes


def _following(hashes: Words) -> Slots:
    """How many equals there are from each place on, itself included; equals lie together."""
    ends = np.flatnonzero(hashes[1:] != hashes[:-1]) + 1
    places = np.arange(len(hashes))
    if len(ends) == len(hashes) - 1:  # all different
        return np.ones_like(places)
    ends = np.append(ends, len(hashes))
    return ends[np.searchsorted(ends, places, side="right")] - places
