"""Fused scores of any set of detectors over the same samples, quickly.

What `Calibration.rule` makes anew for every set is kept: a detector's tail scores do not depend on
which others look. A set then costs one more tail, of the lengths of vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors.calibration import Calibration
from detectors.fusion import FAR, features
from detectors.rule import Cascade, Threshold, worst_threshold
from detectors.tails import GroupTails, quiet
from proxy.cascade import levels_of
from tuning.search.space import Candidate, Space

Floats = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.int64]

_FITTING, _HELD = "fitting.", "held."
MOST_KEPT = 64
"""Sets whose scores are kept."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a policy's rule makes of all samples."""

    threshold: Threshold
    fused: Mapping[str, Floats]
    """Set of samples -> (N,)."""
    reached: Mapping[str, Ranks]
    """Set of samples -> (N,) the level of the cascade at which each is settled; 0 without one."""
    levels: tuple[tuple[str, ...], ...]
    """The detectors that have looked by each level."""

    def flagged(self, key: str) -> npt.NDArray[np.bool_]:
        """Which samples of a set are suspicious."""
        over: npt.NDArray[np.bool_] = ~(self.fused[key] <= np.float32(self.threshold.value))
        return over


class Fuser:
    """Judges the same samples by many rules.

    Args:
        calibration: benign scores of the palette.
        detectors: the columns of the samples' scores.
        samples: set of samples -> (N, D) scores; no name begins with `fitting.` or `held.`.
    """

    def __init__(
        self, calibration: Calibration, detectors: Sequence[str], samples: Mapping[str, Tensor]
    ) -> None:
        self._names = tuple(detectors)
        self._learners = {frozenset(each.names): each for each in calibration.learners}
        columns = [calibration.names.index(name) for name in self._names]
        benign = {
            key: scores[:, columns]
            for key, scores in calibration.tensors().items()
            if key.startswith((_FITTING, _HELD))
        }
        fitting = [scores for key, scores in benign.items() if key.startswith(_FITTING)]
        every = {**benign, **samples}
        ends = np.cumsum([0, *(len(scores) for scores in every.values())]).tolist()
        self._at = {
            key: slice(start, end)
            for key, start, end in zip(every, ends[:-1], ends[1:], strict=True)
        }
        self._samples = tuple(samples)
        with quiet():
            tails = GroupTails.fit(fitting).of_array(torch.cat(list(every.values())).numpy())
        # (D, M), so that the columns of a set lie together.
        self._tails = np.ascontiguousarray(np.minimum(tails, np.float32(FAR)).T)
        self._kept: dict[frozenset[str], Floats] = {}

    def judge(self, space: Space, candidate: Candidate) -> Judged:
        """Every sample by a candidate's rule.

        Raises:
            CalibrationError: the calibration does not support its rate.
        """
        stops = candidate.stops
        levels, cascades = levels_of(
            space.built(candidate.detectors),
            None if stops is None else Cascade(*stops),
        )
        fused = self.fused(levels[-1])
        reached = np.full(len(fused), len(levels) - 1)
        for level in reversed(range(len(levels) - 1)):
            early = self.fused(levels[level])
            done = cascades[level].settles(torch.from_numpy(early)).numpy()
            fused = np.where(done, early, fused)
            reached[done] = level
        held = {
            key.removeprefix(_HELD): torch.from_numpy(fused[at]).sort().values
            for key, at in self._at.items()
            if key.startswith(_HELD)
        }
        threshold = worst_threshold(held, candidate.fpr)
        keys = [*self._samples, *(key for key in self._at if key.startswith(_HELD))]
        return Judged(
            threshold,
            {key: fused[self._at[key]] for key in keys},
            {key: reached[self._at[key]] for key in keys},
            tuple(levels),
        )

    def fused(self, names: Sequence[str]) -> Floats:
        """(M,) of all samples by one set of detectors."""
        key = frozenset(names)
        if key not in self._kept:
            while len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._fuse(names)
        return self._kept[key]

    def _fuse(self, names: Sequence[str]) -> Floats:
        rows = self._tails[[self._names.index(name) for name in names]]  # (D, M)
        fused = self._final(np.sqrt((rows * rows).sum(0)))
        learner = self._learners.get(frozenset(names))
        if learner is not None:
            told = self._tails[[self._names.index(name) for name in learner.names]]
            learned = features(torch.from_numpy(told.T)) @ learner.weights
            fused = np.maximum(fused, self._final(learned.numpy()))
        return fused

    def _final(self, score: Floats) -> Floats:
        """On the scale of its own benign tail, of whichever group it is most usual in."""
        fitting = [
            torch.from_numpy(score[at])[:, None]
            for key, at in self._at.items()
            if key.startswith(_FITTING)
        ]
        with quiet():
            final: Floats = GroupTails.fit(fitting).of_array(score[:, None])[:, 0]
        return final


def held(group: str) -> str:
    """The name in `Judged` of the calibration's own samples of a group."""
    return f"{_HELD}{group}"
