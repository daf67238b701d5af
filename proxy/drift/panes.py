"""A window over the latest samples, in two halves: it is looked at each time a half is full.

Bounded memory: three sketches, however much comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from detectors.drift_reference import Reference
from detectors.drift_sketch import Sketch, block_of
from detectors.drift_test import LEAST_BLOCKS
from proxy.drift.batch import Batch

STRETCHES = 64
"""Parts of a window that count as independent of each other, where there are too few principals."""
ENOUGH = 2 * LEAST_BLOCKS
"""Principals in half a window that are compared with each other. Fewer are most often gateways, or
clients without a name behind one address: a stretch of each one's traffic is a block then."""


class Panes(ABC):
    """The last two full halves of a window, and the one that is filling.

    Args:
        reference: what the sketches are of.
        key: of the blocks, equal in all workers.
    """

    def __init__(self, reference: Reference, key: bytes) -> None:
        self._reference = reference
        self._key = key
        self._filling = Sketch(reference)
        self._full: deque[Sketch] = deque(maxlen=2)
        self._met: set[int] = set()  # blocks of the principals in the half that is filling
        self._by_stretch = False
        self.mark = 0
        """Changes whenever a half is full."""

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Take in samples in the order they came."""

    def window(self) -> Sketch:
        """The last full halves as one; empty before there is one."""
        whole = Sketch(self._reference)
        for each in self._full:
            whole.merge(each)
        return whole

    def _fill(self, batch: Batch, stretches: Sequence[int]) -> None:
        """Count samples in the half that is filling; of each, the stretch of traffic it is from."""
        own = {name: block_of(name, self._key) for name in set(batch.principals)}
        self._met.update(own.values())
        if self._by_stretch:
            pairs = list(zip(batch.principals, stretches, strict=True))
            known = {pair: block_of(pair[0], self._key, 1 + pair[1]) for pair in set(pairs)}
            blocks = [known[pair] for pair in pairs]
        else:
            blocks = [own[name] for name in batch.principals]
        self._filling.add(np.array(blocks, np.int64), batch.values)

    def _finish(self) -> None:
        self._full.append(self._filling)
        self._filling = Sketch(self._reference)
        self._by_stretch = len(self._met) < ENOUGH
        self._filling.by_stretch = self._by_stretch
        self._met.clear()


class CountPanes(Panes):
    """A window of so many samples.

    Args:
        count: of the window.
    """

    def __init__(self, reference: Reference, key: bytes, *, count: int) -> None:
        super().__init__(reference, key)
        self._half = count // 2
        self._stretch = max(1, count // STRETCHES)
        self._filled = 0

    def add(self, batch: Batch) -> None:
        """See `Panes.add`."""
        while len(batch):
            room = self._half - self._filled
            part, batch = batch.part(slice(room)), batch.part(slice(room, None))
            begun = self.mark * self._half + self._filled
            self._fill(part, [(begun + i) // self._stretch for i in range(len(part))])
            self._filled += len(part)
            if self._filled == self._half:
                self._finish()
                self._filled = 0
                self.mark += 1


class TimePanes(Panes):
    """A window of so many seconds; its halves begin at the same times in all processes.

    Args:
        seconds: of the window.
        now_s: Unix time.
    """

    def __init__(self, reference: Reference, key: bytes, *, seconds: float, now_s: float) -> None:
        super().__init__(reference, key)
        self._half_s = seconds / 2
        self._stretch_s = seconds / STRETCHES
        self.mark = int(now_s // self._half_s)

    def add(self, batch: Batch) -> None:
        """See `Panes.add`; what a clock put back makes late counts to the half that is filling."""
        halves = np.maximum.accumulate((batch.times_s // self._half_s).astype(np.int64))
        bounds = [*np.flatnonzero(np.diff(halves, prepend=-1)).tolist(), len(batch)]
        for start, end in pairwise(bounds):
            self.pass_to(float(batch.times_s[start]))
            part = batch.part(slice(start, end))
            self._fill(part, (part.times_s // self._stretch_s).astype(np.int64).tolist())

    def pass_to(self, now_s: float) -> None:
        """End the halves that are over by now, also where nothing came."""
        half = int(now_s // self._half_s)
        # More than two halves without a sample leave nothing of what came before.
        for _ in range(min(half - self.mark, 3)):
            self._finish()
        self.mark = max(self.mark, half)
