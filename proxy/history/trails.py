"""The latest queries of each principal, in their order. Never pixels."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from detectors.steps import TRAIL

MOST = 1024
"""Principals whose latest queries are kept, about nine kilobytes each."""

Sketches = npt.NDArray[np.int16]


class Trails:
    """The sketches of what each principal asked of late; who has been quiet longest goes first.

    A step of a search can be known by an earlier one it undoes, which need not be among the
    queries that are most alike.

    Args:
        most: principals remembered.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._by_owner: OrderedDict[int, Sketches] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_owner)

    def of(self, owner: int) -> Sketches | None:
        """The owner's latest queries, (T, D), T <= `TRAIL`; None for who asked nothing yet."""
        return self._by_owner.get(owner)

    def add(self, owner: int, sketches: Sketches) -> None:
        """Add queries of an owner, (B, D)."""
        known = self._by_owner.pop(owner, sketches[:0])
        self._by_owner[owner] = np.concatenate((known, sketches))[-TRAIL:]
        if len(self._by_owner) > self._most:
            self._by_owner.popitem(last=False)

    def forget(self, owner: int) -> None:
        """Forget what an owner asked."""
        self._by_owner.pop(owner, None)
