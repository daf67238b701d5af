"""Whose earlier queries an operator has forgiven, and until when. Pure."""

from __future__ import annotations

import numpy as np

from proxy.history.memory import Memory

MOST = 10_000
"""Owners with a pardon; one more takes the place of the oldest."""


class Pardons:
    """A time for each owner.

    Args:
        memory: where they are kept.
    """

    def __init__(self, memory: Memory) -> None:
        self._owners = memory.array(MOST, np.uint64)
        self._times = memory.array(MOST, np.float64)
        self._given = memory.array(1, np.int64)

    def of(self, owner: int) -> float:
        """Until when all is forgiven, 0 for never; of several pardons the latest."""
        given = min(int(self._given[0]), MOST)
        rows = np.flatnonzero(self._owners[:given] == np.uint64(owner))
        return float(self._times[rows].max(initial=0.0))

    def give(self, owner: int, now: float) -> None:
        """Forgive all until now."""
        row = int(self._given[0]) % MOST
        self._owners[row] = 0  # until its time is there
        self._times[row] = now
        self._owners[row] = owner
        self._given[0] += 1
