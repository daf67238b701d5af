"""Queries to remember: keys at random, records with a number in them, a clock that stands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Owners = npt.NDArray[np.uint64]

RECORD = np.dtype([("number", "<u4"), ("rest", "V60")])
WIDTH = 24
PATIENT_S = 5.0
"""A lookup's limit where a test is not about time: a busy machine is no failure."""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def numbered(first: int, count: int) -> npt.NDArray[np.void]:
    """Records with the numbers `first`, `first` + 1, ... in them."""
    records = np.zeros(count, RECORD)
    records["number"] = np.arange(first, first + count)
    return records


def random_keys(queries: int, *, seed: int, width: int = WIDTH) -> Keys:
    """(queries, width) keys that no other seed has."""
    return np.random.default_rng(seed).integers(1, 2**64, (queries, width), dtype=np.uint64)


def with_in_common(keys: Keys, places: list[int], *, seed: int) -> Keys:
    """Other keys, but for those in these places of each row."""
    other = random_keys(len(keys), seed=seed, width=keys.shape[1])
    other[:, places] = keys[:, places]
    return other
