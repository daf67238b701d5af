"""Until when is forgiven."""

from __future__ import annotations

from proxy.history import pardons
from proxy.history.memory import Memory
from proxy.history.pardons import Pardons


def test_the_latest_pardon_counts() -> None:
    given = Pardons(Memory())
    assert given.of(1) == 0
    given.give(1, 5.0)
    given.give(2, 6.0)
    given.give(1, 7.0)
    assert (given.of(1), given.of(2), given.of(3)) == (7.0, 6.0, 0.0)


def test_the_oldest_makes_room() -> None:
    given = Pardons(Memory())
    for owner in range(1, pardons.MOST + 2):
        given.give(owner, float(owner))
    assert given.of(1) == 0
    assert given.of(2) == 2.0
    assert given.of(pardons.MOST + 1) == pardons.MOST + 1
