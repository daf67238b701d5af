"""How often a pass over the device also measures its inputs: so that it costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.02
"""Of the time, spent on measuring at most: a sample of the traffic tells as much as all of it."""
ROWS = 8
"""Samples of one pass that are measured, at most."""


class Thrift:
    """Says when to measure again; by the clock alone, so that no input can choose.

    Args:
        now: seconds since some fixed time.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._due_s = now()
        self._begun_s = 0.0

    def begin(self) -> bool:
        """Whether to measure now; if so, say `end` after it."""
        self._begun_s = self._now()
        return self._begun_s >= self._due_s

    def end(self) -> None:
        """What was begun is over; the next one may wait for fifty times as long as it took."""
        now_s = self._now()
        self._due_s = now_s + (now_s - self._begun_s) * (1 / SHARE - 1)
