"""Whose slot is taken when none is free."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from proxy.history.fair_slots import FairSlots

NEVER = -1.0


def lend(slots: FairSlots, *owners: int, now: float = 0.0, expired: float = NEVER) -> list[int]:
    lent: list[int] = slots.take(np.array(owners, np.uint64), now=now, expired=expired).tolist()
    return lent


def test_slots_are_lent_from_the_first_on() -> None:
    slots = FairSlots(5)
    assert lend(slots) == []
    assert lend(slots, 7, 7, 8) == [0, 1, 2]
    assert len(slots) == slots.touched == 3
    assert lend(slots, 9) == [3]
    assert len(slots) == 4


def test_one_slot_goes_round() -> None:
    slots = FairSlots(1)
    assert lend(slots, 1, 2, 3) == [0, 0, 0]
    assert len(slots) == slots.touched == 1


def test_someone_alone_may_have_all_of_it() -> None:
    slots = FairSlots(4)
    assert lend(slots, *[7] * 10) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_time_of_lending() -> None:
    slots = FairSlots(2)
    lend(slots, 1, now=3.0)
    lend(slots, 1, now=4.0)
    lend(slots, 1, now=5.0)
    assert slots.since.tolist() == [5.0, 4.0]


def test_expired_slots_go_first_and_before_untouched_ones() -> None:
    slots = FairSlots(8, salt=1)
    lend(slots, 1, now=0.0)
    lend(slots, 2, 2, 2, now=5.0)
    assert lend(slots, 2, now=6.0, expired=1.0) == [0]
    assert lend(slots, 2, now=6.0, expired=1.0) == [4]
    assert slots.touched == 5


def test_what_expired_is_given_back_bit_by_bit() -> None:
    slots = FairSlots(100)
    lend(slots, *range(100))
    assert len(slots) == 100
    lend(slots, 5, 6, now=2.0, expired=1.0)
    assert len(slots) == 98  # four given back, two lent
    for _ in range(60):
        lend(slots, 5, 6, now=2.0, expired=1.0)
    assert set(slots.since.tolist()) >= {2.0}
    assert slots.touched == 100


def test_owners_are_spread_by_the_salt() -> None:
    def displaced(salt: int) -> tuple[int, ...]:
        slots = FairSlots(1000, salt=salt)
        lend(slots, *range(1000))
        return tuple(lend(slots, *range(100)))

    assert displaced(1) == displaced(1)
    assert displaced(1) != displaced(2)


OWNERS = (3, 10, 77, 1001)


def test_these_owners_are_in_different_queues() -> None:
    for owner in OWNERS:
        for other in set(OWNERS) - {owner}:
            slots = FairSlots(4, salt=5)
            lend(slots, owner, owner, owner, other)
            assert lend(slots, other) == [0]  # in one queue with it, it would take the last slot
            assert lend(slots, other) != [0]


@given(st.integers(1, 12), st.lists(st.lists(st.sampled_from(OWNERS), max_size=6), max_size=20))
def test_who_has_most_loses_the_oldest(capacity: int, batches: list[list[int]]) -> None:
    slots = FairSlots(capacity, salt=5)
    lent: dict[int, int] = {}  # slot -> owner, the oldest first
    for batch in batches:
        for owner, slot in zip(batch, lend(slots, *batch), strict=True):
            if len(lent) == capacity:
                loser = lent[slot]
                held = Counter(lent.values())
                assert held[loser] == max(held.values())
                assert slot == next(s for s, o in lent.items() if o == loser)
                del lent[slot]
            assert slot not in lent
            lent[slot] = owner
        assert len(slots) == len(lent)
