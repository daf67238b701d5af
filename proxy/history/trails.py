"""The latest queries of each principal, in their order. Never pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.sketch import SIZE
from detectors.steps import TRAIL
from proxy.history.memory import Memory

MOST = 1024
"""Principals whose latest queries are kept, about nine kilobytes each."""

Sketches = npt.NDArray[np.int16]


class Trails:
    """The sketches of what each principal asked of late; who has been quiet longest goes first.

    A step of a search can be known by an earlier one it undoes, which need not be among the
    queries that are most alike.

    Args:
        most: principals remembered.
        memory: where they are kept.
    """

    def __init__(self, most: int = MOST, *, memory: Memory | None = None) -> None:
        memory = memory or Memory()
        self._owners = memory.array(most, np.uint64)
        self._lengths = memory.array(most, np.int64)
        self._asked = memory.array(most, np.int64)  # by the count of all requests
        self._requests = memory.array(1, np.int64)
        self._sketches = memory.array((most, TRAIL, SIZE), np.int16)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._owners))

    def of(self, owner: int) -> Sketches | None:
        """The owner's latest queries, (T, D), T <= `TRAIL`; None for who asked nothing yet."""
        row = self._row(owner)
        return None if row is None else self._sketches[row, : int(self._lengths[row])].copy()

    def add(self, owner: int, sketches: Sketches) -> None:
        """Add queries of an owner, (B, D)."""
        row = self._row(owner)
        if row is None:
            row = int(self._asked.argmin())
            self._owners[row] = self._lengths[row] = 0
            self._owners[row] = owner or 1
        self._requests[0] += 1
        self._asked[row] = self._requests[0]
        known = int(self._lengths[row])
        if known + len(sketches) > TRAIL:
            kept = np.concatenate((self._sketches[row, :known], sketches))[-TRAIL:]
            self._lengths[row] = 0  # while they are moved
            known, sketches = 0, kept
        self._sketches[row, known : known + len(sketches)] = sketches
        self._lengths[row] = known + len(sketches)

    def forget(self, owner: int) -> None:
        """Forget what an owner asked."""
        row = self._row(owner)
        if row is not None:
            self._owners[row] = self._asked[row] = 0

    def _row(self, owner: int) -> int | None:
        rows = np.flatnonzero(self._owners == np.uint64(owner or 1))
        return int(rows[0]) if len(rows) else None
