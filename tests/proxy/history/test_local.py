"""The store in this process: what it finds, in which order, whom it forgets, and when."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.history.key_index import PER_KEY
from proxy.history.local import MOST_MARKS, LocalStore
from proxy.history.store import MOST, FingerprintStore, Found

RECORD = np.dtype([("number", "<u4"), ("sketch", "i1", (7,)), ("when", "<f8")])  # 19 bytes
T = TypeVar("T")
Words = npt.NDArray[np.uint64]


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that must not give way to any other."""
    with pytest.raises(StopIteration) as end:
        call.send(None)
    value: T = end.value.value
    return value


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def store(capacity: int = 1000, keys: int = 4, clock: Clock | None = None) -> LocalStore:
    return LocalStore(capacity, RECORD, keys, ttl_s=10.0, clock=clock or Clock(), salt=5)


def records(*numbers: int) -> npt.NDArray[np.void]:
    made = np.zeros(len(numbers), RECORD)
    made["number"] = numbers
    made["sketch"] = np.array(numbers)[:, None] % 100 - np.arange(7)
    made["when"] = np.array(numbers) / 3
    return made


def keyed(rows: list[list[int]], width: int = 4) -> Words:
    return np.array([row + [0] * (width - len(row)) for row in rows], np.uint64).reshape(-1, width)


def owned(*owners: int) -> Words:
    return np.array(owners, np.uint64)


def remember(s: LocalStore, rows: list[list[int]], numbers: list[int], owner: int = 3) -> Words:
    return s.remember(keyed(rows), owned(*[owner] * len(rows)), records(*numbers))


def lookup(s: LocalStore, rows: list[list[int]]) -> Found:
    return at_once(s.lookup(keyed(rows), owned(*[3] * len(rows))))


def told(found: Found) -> list[tuple[int, int, int]]:
    numbers = found.records["number"].tolist()
    return list(zip(found.rows.tolist(), found.shared.tolist(), numbers, strict=True))


def draw(count: int, seed: int, width: int = 4) -> Words:
    return np.random.default_rng(seed).integers(1, 2**64, (count, width), dtype=np.uint64)


def flood(s: LocalStore, count: int, owners: Words, seed: int = 1, batch: int = 32) -> None:
    keys = draw(count, seed)
    for i in range(0, count, batch):
        part = keys[i : i + batch]
        s.remember(part, owners[i : i + batch], records(*[10**6] * len(part)))


def kept(s: LocalStore, keys: Words) -> int:
    """How many of the queries with these keys are remembered."""
    found = at_once(s.lookup(keys, np.zeros(len(keys), np.uint64)))
    return len(np.unique(found.rows))


def test_what_is_remembered_is_found_by_any_key() -> None:
    s: FingerprintStore = store()
    assert told(at_once(s.lookup(keyed([[1, 2]]), owned(3)))) == []
    s.remember(keyed([[1, 2, 3, 4], [5, 6, 7, 8]]), owned(3, 3), records(10, 11))
    found = at_once(s.lookup(keyed([[9], [8, 1, 20], [2, 3, 4]]), owned(3, 3, 3)))
    assert told(found) == [(1, 0b01, 11), (1, 0b10, 10), (2, 0b111, 10)]
    assert found.rows.dtype == np.intp
    assert found.shared.dtype == np.uint64
    assert found.records.dtype == RECORD
    assert found.marks.tolist() == [0, 0, 0]


def test_records_come_back_as_they_were() -> None:
    s = store()
    given_records = records(7, 8, 9)
    remember(s, [[1], [2], [3]], [7, 8, 9])
    assert lookup(s, [[1], [2], [3]]).records.tobytes() == given_records.tobytes()


def test_records_found_are_a_copy() -> None:
    s = store()
    remember(s, [[1]], [7])
    lookup(s, [[1]]).records["number"] = 8
    assert told(lookup(s, [[1]])) == [(0, 1, 7)]


def test_views_of_all_kinds_are_taken() -> None:
    s = store()
    wide = np.zeros((3, 8), np.uint64)
    wide[:, ::2] = keyed([[1], [2], [3]])
    behind = np.zeros(3, np.dtype([("pad", "u1"), ("record", RECORD)]))
    behind["record"] = records(7, 8, 9)
    buffer = bytearray(1 + 3 * 8)
    owners = np.frombuffer(buffer, np.uint64, count=3, offset=1)
    assert not owners.flags.aligned
    handles = s.remember(wide[::-1, ::2], owners, behind["record"][::-1])
    columns = np.asfortranarray(wide[:, ::2])
    assert told(at_once(s.lookup(columns, owners))) == [(0, 1, 7), (1, 1, 8), (2, 1, 9)]
    unaligned = np.frombuffer(b"x" + handles.tobytes(), np.uint64, offset=1)
    s.amend(unaligned[::2], records(0, 19, 17)[1:])
    assert told(lookup(s, [[1], [2], [3]])) == [(0, 1, 17), (1, 1, 8), (2, 1, 19)]


def test_no_queries() -> None:
    s = store()
    assert remember(s, [], []).shape == (0,)
    for _ in range(2):
        found = lookup(s, [])
        assert told(found) == []
        assert found.marks.shape == found.rows.shape == found.shared.shape == (0,)
        assert found.records.dtype == RECORD
        remember(s, [[1]], [7])


def test_a_query_without_keys_is_not_kept() -> None:
    s = store()
    handles = remember(s, [[], [1], []], [7, 8, 9])
    assert len(s) == 1
    s.amend(handles, records(17, 18, 19))
    assert told(lookup(s, [[], [1], [0]])) == [(1, 1, 18)]


def test_a_key_counts_once_in_a_row() -> None:
    s = store()
    remember(s, [[1, 1, 2, 1], [1, 2, 3, 3]], [7, 8])
    assert told(lookup(s, [[1, 2, 1, 2]])) == [(0, 0b11, 8), (0, 0b11, 7)]
    assert told(lookup(s, [[3, 3], [2]])) == [(0, 0b1, 8), (1, 0b1, 8), (1, 0b1, 7)]


def test_those_that_share_most_come_first_then_the_newest() -> None:
    s = store()
    remember(s, [[1, 2], [1, 2, 3], [1], [1, 2]], [1, 2, 3, 4])
    remember(s, [[3], [4]], [5, 6])
    expected = [(0, 0b111, 2), (0, 0b011, 4), (0, 0b011, 1), (0, 0b100, 5), (0, 0b001, 3)]
    assert told(lookup(s, [[1, 2, 3]])) == expected


def test_at_most_so_many_are_found() -> None:
    s = store()
    remember(s, [[1, 2]], [0])
    for number in range(1, 8):
        remember(s, [[1], [2], [3], [4]], [number] * 4)
    found = lookup(s, [[1, 2, 3, 4], [4]])
    assert (found.rows == 0).sum() == MOST
    assert told(found)[:3] == [(0, 0b0011, 0), (0, 0b1000, 7), (0, 0b0100, 7)]
    assert [t for t in told(found) if t[0] == 1] == [(1, 1, n) for n in range(7, 0, -1)]


@pytest.mark.parametrize("width", [1, 64])
def test_fewest_and_most_keys(width: int) -> None:
    s = store(keys=width)
    keys = draw(5, 0, width)
    s.remember(keys, owned(*[3] * 5), records(*range(5)))
    found = at_once(s.lookup(keys[::-1], owned(*[3] * 5)))
    assert found.records["number"].tolist() == [4, 3, 2, 1, 0]
    assert found.shared.tolist() == [2**width - 1] * 5


def test_old_queries_are_not_found() -> None:
    clock = Clock()
    s = store(clock=clock)
    remember(s, [[1]], [1])
    clock.now += 6
    remember(s, [[1]], [2])
    clock.now += 3.9
    assert [t[2] for t in told(lookup(s, [[1]]))] == [2, 1]
    clock.now += 0.1
    assert [t[2] for t in told(lookup(s, [[1]]))] == [2]
    clock.now += 6
    assert told(lookup(s, [[1]])) == []
    remember(s, [[2]], [3])
    assert len(s) == 1


def test_room_of_old_queries_is_used_again() -> None:
    clock = Clock()
    s = store(capacity=1 << 24, clock=clock)
    handles = []
    for number in range(600):  # more often than a slot has turns
        handles.append(remember(s, [[1], [2 + number % 2]], [number, number]))
        assert told(lookup(s, [[1]])) == [(0, 1, number)]
        assert told(lookup(s, [[2 + (number + 1) % 2]])) == []
        assert len(s) == 2
        clock.now += 11
    for handle in handles[:-1]:
        s.amend(handle, records(7, 7))
    clock.now -= 11
    assert told(lookup(s, [[1]])) == [(0, 1, 599)]


def test_amended_records() -> None:
    s = store()
    handles = remember(s, [[1], [2], [3]], [1, 2, 3])
    s.amend(handles[[2, 0]], records(13, 11))
    assert told(lookup(s, [[1], [2], [3]])) == [(0, 1, 11), (1, 1, 2), (2, 1, 13)]
    s.amend(handles[:0], records())


def test_the_forgotten_cannot_be_amended() -> None:
    s = store(capacity=1)
    first = remember(s, [[1]], [1])
    remember(s, [[2]], [2])
    s.amend(first, records(11))
    assert told(lookup(s, [[1], [2]])) == [(1, 1, 2)]
    at_once(s.clear())
    third = remember(s, [[3]], [3])
    s.amend(first, records(11))
    assert told(lookup(s, [[3]])) == [(0, 1, 3)]
    s.amend(third, records(13))
    assert told(lookup(s, [[3]])) == [(0, 1, 13)]


def test_handles_of_another_store_do_no_harm() -> None:
    s = store(capacity=2)
    remember(s, [[1]], [1])
    s.amend(np.array([0, 1, 2**24 - 1, 2**64 - 1], np.uint64), records(11, 12, 13, 14))
    assert told(lookup(s, [[1]])) == [(0, 1, 1)]


def test_a_batch_larger_than_the_store() -> None:
    s = store(capacity=3)
    handles = remember(s, [[i] for i in range(1, 9)], list(range(1, 9)))
    assert len(set(handles.tolist())) == 8
    s.amend(handles, records(*range(11, 19)))
    assert told(lookup(s, [[i] for i in range(1, 9)])) == [(5, 1, 16), (6, 1, 17), (7, 1, 18)]


def test_a_store_of_one() -> None:
    s = store(capacity=1)
    for number in range(1, 40):
        remember(s, [[number, 100]], [number])
        assert told(lookup(s, [[number - 1], [number], [100]])) == [(1, 1, number), (2, 1, number)]


def test_everything_is_forgotten_when_asked() -> None:
    s = store()
    remember(s, [[1]], [1])
    s.mark(3, 0.5, 100)
    at_once(s.clear())
    assert len(s) == 0
    assert told(lookup(s, [[1]])) == []
    assert lookup(s, [[1]]).marks.tolist() == [0]


def test_a_flood_displaces_only_its_own() -> None:
    s = store(capacity=4096)
    mine = draw(50, 0)
    s.remember(mine, owned(*[3] * 50), records(*range(50)))
    flood(s, 3 * 4096, np.full(3 * 4096, 77, np.uint64))
    assert kept(s, mine) == 50
    assert len(s) == 4096


def test_a_flood_against_a_store_full_of_others() -> None:
    s = store(capacity=4096)
    flood(s, 4096, np.full(4096, 10, np.uint64), seed=2)
    mine = draw(50, 0)
    s.remember(mine, owned(*[3] * 50), records(*range(50)))
    flood(s, 3 * 4096, np.full(3 * 4096, 77, np.uint64))
    assert kept(s, mine) == 50


def test_a_flood_of_many_names_needs_the_whole_store() -> None:
    s = store(capacity=4096)
    mine = draw(50, 0)
    s.remember(mine, owned(*[3] * 50), records(*range(50)))
    names = np.arange(5000, 5000 + 3 * 4096, dtype=np.uint64)
    flood(s, 3500, names)
    assert kept(s, mine) == 50
    flood(s, 3 * 4096, names, seed=2)
    assert kept(s, mine) == 0


def test_marks() -> None:
    clock = Clock()
    s = store(clock=clock)
    s.mark(3, 0.25, 10.0)
    s.mark(2**64 - 1, 2.0, 5.0)
    owners = owned(2**64 - 1, 3, 4, 3)

    def marks() -> list[float]:
        found = at_once(s.lookup(keyed([[1]] * 4), owners))
        marked: list[float] = found.marks.tolist()
        return marked

    assert marks() == [2.0, 0.25, 0, 0.25]
    clock.now += 5
    assert marks() == [0, 0.25, 0, 0.25]
    s.mark(3, 0.75, 10.0)
    clock.now += 9
    assert marks() == [0, 0.75, 0, 0.75]
    s.mark(3, 0.0, 10.0)
    s.mark(9, 0.0, 10.0)
    assert marks() == [0, 0, 0, 0]


def test_marks_are_bounded() -> None:
    s = store()
    for owner in range(MOST_MARKS):
        s.mark(owner, 1.0, 10.0)
    s.mark(0, 2.0, 10.0)
    s.mark(MOST_MARKS, 1.0, 10.0)
    owners = owned(0, 1, 2, MOST_MARKS)
    assert at_once(s.lookup(keyed([[]] * 4), owners)).marks.tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize("capacity", [0, (1 << 24) + 1])
def test_capacity_has_a_range(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        LocalStore(capacity, RECORD, 4, ttl_s=1)


@pytest.mark.parametrize("keys", [0, 65])
def test_keys_have_a_range(keys: int) -> None:
    with pytest.raises(ValueError, match="keys"):
        LocalStore(10, RECORD, keys, ttl_s=1)


def test_objects_are_no_records() -> None:
    with pytest.raises(ValueError, match="objects"):
        LocalStore(10, np.dtype([("name", "O")]), 4, ttl_s=1)


def test_what_does_not_fit_is_refused() -> None:
    s = store()
    with pytest.raises(ValueError, match=r"\(B, 4\)"):
        at_once(s.lookup(keyed([[1]], 5), owned(3)))
    with pytest.raises(ValueError, match="records"):
        s.remember(keyed([[1]]), owned(3), np.zeros(1, [("number", "<u4")]))
    assert len(s) == 0


class Naive:
    """What a store within its capacity should find, the plain way."""

    def __init__(self) -> None:
        self.queries: dict[int, list[int]] = {}  # key -> numbers of queries, the oldest first

    def remember(self, rows: list[list[int]], first: int) -> None:
        for number, row in enumerate(rows, first):
            for key in set(row) - {0}:
                self.queries.setdefault(key, []).append(number)

    def lookup(self, rows: list[list[int]]) -> list[tuple[int, int, int]]:
        found = []
        for i, row in enumerate(rows):
            shared: dict[int, int] = {}
            for k, key in enumerate(row):
                if key and key not in row[:k]:
                    for number in self.queries.get(key, [])[-PER_KEY:]:
                        shared[number] = shared.get(number, 0) | 1 << k
            best = sorted(shared.items(), key=lambda item: (-item[1].bit_count(), -item[0]))
            found += [(i, mask, number) for number, mask in best[:MOST]]
        return found


ROWS = st.lists(st.lists(st.integers(0, 15), min_size=4, max_size=4), max_size=12)


@given(st.lists(ROWS, max_size=12))
def test_it_finds_what_a_plain_one_finds(batches: list[list[list[int]]]) -> None:
    s, naive, asked = store(capacity=150), Naive(), 0
    for rows in batches:
        assert told(lookup(s, rows)) == naive.lookup(rows)
        remember(s, rows, list(range(asked, asked + len(rows))))
        naive.remember(rows, asked)
        asked += len(rows)
        assert told(lookup(s, rows)) == naive.lookup(rows)


@given(st.integers(1, 40), st.lists(ROWS, max_size=12))
def test_beyond_its_capacity_it_finds_nothing_wrong(
    capacity: int, batches: list[list[list[int]]]
) -> None:
    s = store(capacity=capacity)
    everything: list[list[int]] = []
    for rows in batches:
        remember(s, rows, list(range(len(everything), len(everything) + len(rows))))
        everything += rows
        alive = [number for number, row in enumerate(everything) if any(row)][-capacity:]
        assert len(s) == len(alive)
        for i, mask, number in told(lookup(s, rows)):
            assert number in alive
            shared = {rows[i][k] for k in range(4) if mask >> k & 1}
            assert shared <= set(everything[number]) - {0}
