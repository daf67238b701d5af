"""Each principal's latest queries, in order, and not too many of them."""

from __future__ import annotations

import numpy as np

from detectors.sketch import SIZE
from detectors.steps import TRAIL
from proxy.history.trails import Trails


def sketches(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.int16)[:, None], SIZE, axis=1)


def test_queries_are_kept_in_their_order() -> None:
    trails = Trails()
    assert trails.of(1) is None
    trails.add(1, sketches(1, 2))
    trails.add(2, sketches(9))
    trails.add(1, sketches(3))
    first = trails.of(1)
    assert first is not None
    assert first[:, 0].tolist() == [1, 2, 3]


def test_only_the_latest_are_kept() -> None:
    trails = Trails()
    trails.add(1, sketches(*range(TRAIL + 5)))
    kept = trails.of(1)
    assert kept is not None
    assert kept[:, 0].tolist() == list(range(5, TRAIL + 5))


def test_who_was_quiet_longest_goes_first() -> None:
    trails = Trails(most=2)
    for owner in (1, 2, 1, 3):
        trails.add(owner, sketches(owner))
    assert len(trails) == 2
    assert trails.of(2) is None
    assert trails.of(1) is not None


def test_a_pardon_forgets() -> None:
    trails = Trails()
    trails.add(1, sketches(1))
    trails.forget(1)
    trails.forget(7)
    assert trails.of(1) is None
