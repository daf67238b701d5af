"""Hashes under a key, and what is too much."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from proxy.records.sketch import HASH_BITS, Keyed, most_per_principal, surplus
from tests.proxy.records.flows import KEY


def test_alike_to_five_digits_hash_alike() -> None:
    keyed = Keyed(KEY)
    assert keyed.scores([1.234561, -2.0]) == keyed.scores([1.234559, -2.0])
    assert keyed.scores([1.2345, -2.0]) != keyed.scores([1.2346, -2.0])
    assert keyed.scores([1.0, 2.0]) != keyed.scores([2.0, 1.0])
    assert keyed.scores([1.0, math.nan]) == keyed.scores([1.0, math.nan])
    assert len({keyed.scores([x]) for x in (math.nan, math.inf, -math.inf, 0.0, 1e-300)}) == 5


def test_another_key_orders_differently() -> None:
    values = [[float(i)] for i in range(100)]
    one, other = Keyed(KEY), Keyed(bytes(16))
    assert sorted(values, key=one.scores) != sorted(values, key=other.scores)
    assert all(0 <= one.scores(v) < 2**HASH_BITS for v in values)


def test_hostile_names_have_a_digest() -> None:
    keyed = Keyed(KEY)
    names = ["", "\ud800", "\x00", "a" * 100_000, "é", "e\u0301", "\u202e"]
    assert len({keyed.principal(name) for name in names}) == len(names)


def test_a_principal_over_its_share_goes_first() -> None:
    hashes = np.arange(12, dtype=np.uint64)
    principals = np.array([7] * 8 + [1, 2, 3, 4], np.uint32)
    assert most_per_principal(8) == 2
    # The hashes of 7 are the smallest, and yet the others stay.
    assert sorted(surplus(hashes, principals, 8).tolist()) == [4, 5, 6, 7]
    assert sorted(surplus(hashes, np.arange(12, dtype=np.uint32), 8).tolist()) == [8, 9, 10, 11]
    assert sorted(surplus(hashes, np.zeros(12, np.uint32), 8).tolist()) == [8, 9, 10, 11]
    assert len(surplus(hashes, principals, 12)) == 0


@given(
    st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 3)), unique_by=lambda x: x[0]),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_in_pieces_as_at_once(rows: list[tuple[int, int]], capacity: int, piece: int) -> None:
    def kept(some: list[tuple[int, int]]) -> list[tuple[int, int]]:
        hashes = np.array([row[0] for row in some], np.uint64)
        principals = np.array([row[1] for row in some], np.uint32)
        gone = set(surplus(hashes, principals, capacity).tolist())
        return [row for i, row in enumerate(some) if i not in gone]

    held: list[tuple[int, int]] = []
    for start in range(0, len(rows), piece):
        held = kept(held + rows[start : start + piece])
    assert sorted(held) == sorted(kept(rows))
    assert len(held) == min(capacity, len(rows))
