"""Fusing the scores of several detectors into one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detectors.tails import Array, GroupTails, quiet

_MOST = 20.0
"""Tail score of one benign sample in half a billion: past it, more is not more suspicious."""
FAR = 1e16
"""Where tail scores end. The square of a larger one could overflow, and a sample as suspicious as
can be would have no verdict."""

_ERROR = 1e-6
"""Share of a sum by which float32 may be off, with room to spare: a few units in its last place."""
Bounds = tuple[float, float]
"""The least and the most a number can be."""


@dataclass(frozen=True, slots=True)
class Learner:
    """A linear score over tail scores, learned from generated attacks beside benign samples."""

    names: tuple[str, ...]
    weights: Tensor
    """(2 * D,), see `features`."""

    def __call__(self, tails: Tensor) -> Tensor:
        """The score of tail scores, (B,) for (B, D)."""
        return features(tails) @ self.weights


def features(tails: Tensor) -> Tensor:
    """What a learner sees of tail scores: each, bounded, and its square root, (B, 2D) for (B, D).

    Bounded, because a sample far out of one detector's benign range is suspicious in any case, and
    would outweigh the evidence on all others where weights are learned.
    """
    bounded = tails.clamp(0, _MOST)
    return torch.cat((bounded, bounded.sqrt()), dim=-1) + tails.repeat(1, 2) * 0


class Fusion:
    """One score of several detectors, on the scale -log(benign tail share).

    Every detector's score is put on the scale of its benign tail, group by group. The length of
    the vector of these tail scores is led by the strongest evidence while weaker evidence still
    counts, and one-sided in every detector, so an unusual but quiet input does not alarm. Where
    there is a learner, its score counts as much: the larger of the two, each on the scale of its
    own benign tail, which is an OR of two tests at equal rates.

    Args:
        names: the detectors, in the order of the columns.
        groups: benign group -> (n_g, D) scores, n_g >= 10, of samples no threshold rests on.
        learner: over the same detectors in the same order.
        weights: of each detector's tail score in the vector, (D,); 0 leaves it out.
        device: where to compute.
    """

    def __init__(
        self,
        names: Sequence[str],
        groups: Mapping[str, Tensor],
        *,
        learner: Learner | None = None,
        weights: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.names = tuple(names)
        self._weights = torch.ones(len(self.names)) if weights is None else weights
        self._learner = learner
        self.tails = GroupTails.fit(list(groups.values()))
        tails = [self._tails(scores) for scores in groups.values()]
        self._final = [
            GroupTails.fit([score(each)[:, None] for each in tails], device)
            for score in self._scores()
        ]
        self.tails = self.tails.to(device)
        self._plain_weights: list[float] = self._weights.tolist()
        self._weights = self._weights.to(device)
        if learner is not None:
            self._learner = Learner(learner.names, learner.weights.to(device))

    def __call__(self, scores: Mapping[str, Tensor]) -> Tensor:
        """Return (B,), higher = more suspicious; NaN where any score is not finite."""
        return self.of_matrix(torch.stack([scores[name] for name in self.names], dim=1))

    def of_matrix(self, scores: Tensor) -> Tensor:
        """The same for a matrix (B, D) in the order of `names`."""
        on_cpu = self._weights.device.type == scores.device.type == "cpu"
        if on_cpu and not scores.requires_grad and scores.dtype == torch.float32:
            with quiet():
                return torch.from_numpy(self._of_array(scores.numpy()))
        tails = self._tails(scores)
        fused = [
            final(score(tails)[:, None])[:, 0]
            for score, final in zip(self._scores(), self._final, strict=True)
        ]
        return torch.stack(fused).amax(dim=0)

    def bounds(self, scores: Mapping[str, Bounds]) -> Bounds | None:
        """Bounds on the fused score of one sample, from bounds on its scores, in plain floats.

        What `__call__` gives for any scores within is within, since tails never fall. They are far
        apart where many benign scores tie: there the last digit of a score decides.

        Returns:
            None where a score is not finite, or there is a learner, or not on the CPU.
        """
        if self._learner is not None or self._weights.device.type != "cpu":
            return None
        low = high = 0.0
        for column, (name, weight) in enumerate(zip(self.names, self._plain_weights, strict=True)):
            least, most = scores[name]
            if not (math.isfinite(least) and math.isfinite(most)):
                return None
            under = over = self.tails.of_float(column, least)
            if most != least:
                over = self.tails.of_float(column, most)
            low += (min(under, FAR) * weight) ** 2
            high += (min(over, FAR) * weight) ** 2
        (final,) = self._final
        return (
            final.of_float(0, math.sqrt(low) * (1 - _ERROR)) * (1 - _ERROR),
            final.of_float(0, math.sqrt(high) * (1 + _ERROR)) * (1 + _ERROR),
        )

    def _of_array(self, scores: Array) -> Array:
        """The same in numpy: for a few samples a quarter of the time."""
        tails = np.minimum(self.tails.of_array(scores), np.float32(FAR))
        vector = tails * self._weights.numpy()
        length = np.sqrt((vector * vector).sum(1, keepdims=True))
        fused: Array = self._final[0].of_array(length)[:, 0]
        if self._learner is not None:
            learned = self._learner(torch.from_numpy(tails)).numpy()
            fused = np.maximum(fused, self._final[1].of_array(learned[:, None])[:, 0])
        return fused

    def _tails(self, scores: Tensor) -> Tensor:
        return self.tails(scores).clamp(max=FAR)

    def _length(self, tails: Tensor) -> Tensor:
        return (tails * self._weights).square().sum(dim=1).sqrt()

    def _scores(self) -> tuple[Callable[[Tensor], Tensor], ...]:
        return (self._length,) if self._learner is None else (self._length, self._learner)
