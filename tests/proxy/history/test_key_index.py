"""The index alone: what it finds, what it forgets, how it grows, and turns that overflow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from proxy.history.key_index import PER_KEY, KeyIndex

Words = npt.NDArray[np.uint64]


class Remembering:
    """An index whose slots are filled one after the other, round and round."""

    def __init__(self, capacity: int, keys: int) -> None:
        self.ages = np.zeros(capacity, np.uint64)
        self.index = KeyIndex(capacity, keys, ages=self.ages)
        self._capacity, self._asked = capacity, 0

    def add(self, keys: Words) -> npt.NDArray[np.intp]:
        """Remember a row of keys for each query; return their slots."""
        numbers = np.arange(self._asked, self._asked + len(keys))
        self._asked += len(keys)
        slots = (numbers % self._capacity).astype(np.intp)
        self.ages[slots] = 4 * (numbers + 1)
        self.index.renew(slots)
        self.index.reserve(self._asked)
        self.index.insert(keys.ravel(), slots.repeat(keys.shape[1]))
        return slots

    def found(self, key: int) -> list[int]:
        """The slots that one key leads to, ascending."""
        _, slots = self.index.find(np.array([key], np.uint64))
        return sorted(set(slots.tolist()))


def draw(count: int, keys: int, seed: int = 0) -> Words:
    return np.random.default_rng(seed).integers(1, 2**63, (count, keys), dtype=np.uint64)


def missing(memory: Remembering, keys: Words, slots: npt.NDArray[np.intp]) -> int:
    places, found = memory.index.find(keys.ravel())
    hit = np.zeros(keys.size, np.bool_)
    hit[places[found == slots.repeat(keys.shape[1])[places]]] = True
    return int((~hit).sum())


def test_an_empty_index_finds_nothing() -> None:
    memory = Remembering(10, 4)
    for key in (0, 1, 2**64 - 1):
        assert memory.found(key) == []
    places, slots = memory.index.find(np.empty(0, np.uint64))
    assert len(places) == len(slots) == 0


def test_nothing_to_insert() -> None:
    memory = Remembering(10, 4)
    assert len(memory.add(np.empty((0, 4), np.uint64))) == 0


def test_places_say_which_key_was_found() -> None:
    memory = Remembering(100, 3)
    keys = draw(50, 3)
    slots = memory.add(keys)
    asked = np.array([7, keys[9, 2], 8, keys[4, 0]], np.uint64)
    places, found = memory.index.find(asked)
    assert places.tolist() == [1, 3]
    assert found.tolist() == [slots[9], slots[4]]


@pytest.mark.parametrize("step", [1, 37, 500])
def test_it_grows_without_losing_anything(step: int) -> None:
    memory = Remembering(5000, 24)
    keys = draw(5000, 24)
    slots = np.concatenate([memory.add(keys[i : i + step]) for i in range(0, 5000, step)])
    assert missing(memory, keys[:100], slots[:100]) <= 10  # of 2400
    assert missing(memory, keys, slots) <= 0.001 * keys.size


def test_it_grows_through_several_doublings() -> None:
    memory = Remembering(1 << 17, 24)  # from 65536 buckets at most
    keys = draw(60_000, 24)
    slots = np.concatenate([memory.add(part) for part in np.split(keys, 60)])
    assert missing(memory, keys, slots) <= 0.0005 * keys.size


def test_room_made_once_is_kept() -> None:
    memory = Remembering(1 << 17, 24)
    keys = draw(20_000, 24)
    slots = np.concatenate([memory.add(part) for part in np.split(keys, 20)])
    before = missing(memory, keys, slots)
    for queries in (19_000, 17_000, 1, 0):
        memory.index.reserve(queries)
    assert missing(memory, keys, slots) == before


def test_a_full_index_that_goes_on_forgets_only_what_is_gone() -> None:
    memory = Remembering(2000, 24)
    keys = draw(20_000, 24)
    slots = np.concatenate([memory.add(part) for part in np.split(keys, 200)])
    assert missing(memory, keys[-2000:], slots[-2000:]) <= 0.002 * keys[-2000:].size
    places, _ = memory.index.find(keys[:-2000].ravel())
    assert len(places) == 0


def test_a_renewed_slot_is_not_found() -> None:
    memory = Remembering(10, 2)
    keys = draw(3, 2)
    slots = memory.add(keys)
    memory.index.renew(slots[1:2])
    assert [memory.found(int(key)) for key in keys[:, 0]] == [[0], [], [2]]


def test_a_key_leads_to_the_newest_that_have_it() -> None:
    memory = Remembering(100, 1)
    key = np.array([[5]], np.uint64)
    for _ in range(3 * PER_KEY):
        memory.add(key)
        memory.add(draw(1, 1))
    assert memory.found(5) == [2 * i for i in range(2 * PER_KEY, 3 * PER_KEY)]


@pytest.mark.parametrize("before", range(PER_KEY + 2))
@pytest.mark.parametrize("at_once", [1, 2, 7, 8, 9, 40])
def test_so_it_does_when_they_come_together(before: int, at_once: int) -> None:
    memory = Remembering(100, 1)
    for _ in range(before):
        memory.add(np.full((1, 1), 5, np.uint64))
    memory.add(np.full((at_once, 1), 5, np.uint64))
    everything = range(before + at_once)
    assert memory.found(5) == list(everything)[-PER_KEY:]


def test_a_common_key_pushes_no_other_out() -> None:
    memory = Remembering(1000, 24)
    keys = draw(100, 24)
    slots = memory.add(keys)
    for seed in range(1, 10):
        crowd = draw(100, 24, seed)
        crowd[:, :20] = np.arange(1, 21)
        memory.add(crowd)
    assert missing(memory, keys, slots) == 0


def test_turns_that_overflow_bring_nothing_back() -> None:
    memory = Remembering(1 << 24, 1)  # 8 bits are left for a slot's turn
    memory.add(np.array([[3], [5], [7]], np.uint64))
    second = np.array([1])
    for _ in range(600):
        memory.index.renew(second)
        assert memory.found(5) == []
    assert memory.found(3) == [0]
    assert memory.found(7) == [2]
    memory.index.insert(np.array([5], np.uint64), second)
    assert memory.found(5) == [1]
    memory.index.renew(np.array([0, 2]))
    assert memory.found(3) == memory.found(7) == []
