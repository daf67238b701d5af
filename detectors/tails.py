"""Benign tails: a monotone map from a score to -log of the benign share that scores higher."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import DetectorError

_SHARES = (0.95, 0.75, 0.5, 0.25, 0.1)
"""Benign shares above the knots. The last is the start of the exponential tail: at 10 % a few
hundred samples still leave enough excesses for a steady slope."""

Array = npt.NDArray[np.float32]
_ZERO = np.array(0, np.float32)
_START = np.array(math.log(_SHARES[0]), np.float32)


def quiet() -> AbstractContextManager[object]:
    """What `of_array` is to run in: no warnings of scores that are not finite or far out.

    They show in the result. Entering it costs half as much as the function, so callers do it once.
    """
    return np.errstate(invalid="ignore", over="ignore")


class Tails:
    """Piecewise-linear -log p of several scores at once, with an exponential tail.

    Empirical p-values stop at 1/(n + 1), so noise and an attack both sit at the floor and cannot
    be ranked or summed (measured: p-value fusion gave the worst false-positive rates). Here the
    tail above the 90 % quantile continues with the slope 1 / mean excess.

    Args:
        knots: (D, K) increasing along K.
        slopes: (D, K), at least 0: slope from each knot to the next, the last to infinity.
    """

    def __init__(self, knots: Tensor, slopes: Tensor) -> None:
        self.knots, self.slopes = knots, slopes
        self._curve = _Curve(knots, slopes)

    @classmethod
    def fit(cls, scores: Tensor) -> Tails:
        """Learn from benign scores, (n, D), n >= 20 and finite."""
        scores = scores.double()
        levels = torch.tensor([1 - share for share in _SHARES], dtype=torch.float64)
        quantiles = torch.quantile(scores, levels.to(scores.device), dim=0).T  # (D, K)
        # Scores that tie (an unmoved answer, a saturated softmax) would make a slope infinite.
        spread = (quantiles[:, -1:] - quantiles[:, :1]).clamp_min(1e-6)
        step = spread * 1e-3 * torch.arange(len(_SHARES), device=scores.device)
        knots = torch.cummax(quantiles, dim=1).values + step
        over = (scores.T - knots[:, -1:]).clamp_min(0)  # (D, n)
        excess = over.sum(1) / (over > 0).sum(1).clamp_min(1)
        rise = -torch.log(torch.tensor(_SHARES, dtype=torch.float64, device=scores.device))
        inner = (rise[1:] - rise[:-1]) / (knots[:, 1:] - knots[:, :-1])  # (D, K-1)
        last = 1 / excess.clamp_min(spread[:, 0] * 1e-2)
        return cls(knots.float(), torch.cat((inner, last[:, None]), dim=1).float())

    def __call__(self, scores: Tensor) -> Tensor:
        """Return about -log of the benign share above each score.

        Args:
            scores: (B, D).

        Returns:
            (B, D), at least -log 0.95; NaN where a score is not finite.
        """
        return self._curve(scores)

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        return {"knots": self.knots, "slopes": self.slopes}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], device: torch.device) -> Tails:
        """The inverse of `state`, on the given device.

        Raises:
            DetectorError: the state is not one of this class.
        """
        if set(state) != {"knots", "slopes"} or state["knots"].shape != state["slopes"].shape:
            raise DetectorError(f"expected knots and slopes of one shape, not {sorted(state)}")
        return cls(state["knots"].to(device), state["slopes"].to(device))


class GroupTails:
    """Tails of several benign groups; the group that is least surprised counts.

    A score that is common in one benign group is no evidence, however rare it is in the others.
    With the tails of the mix instead, one noisy group among eleven sets the threshold of all.

    Args:
        tails: one for each group, over the same scores.
    """

    def __init__(self, tails: Sequence[Tails]) -> None:
        self._knots = torch.stack([each.knots for each in tails])  # (G, D, K)
        self._slopes = torch.stack([each.slopes for each in tails])
        self._curve = _Curve(self._knots, self._slopes)
        # Made here, and not when first asked for: that is where somebody waits for a verdict.
        self._lines = self._plain() if self._knots.device.type == "cpu" else []

    @classmethod
    def fit(cls, groups: Sequence[Tensor], device: torch.device | str = "cpu") -> GroupTails:
        """Learn from one (n_g, D) matrix of benign scores for each group, n_g >= 10."""
        return cls([Tails.fit(group) for group in groups]).to(device)

    def to(self, device: torch.device | str) -> GroupTails:
        """The same tails on another device."""
        return GroupTails(
            [
                Tails(*each)
                for each in zip(self._knots.to(device), self._slopes.to(device), strict=True)
            ]
        )

    def __call__(self, scores: Tensor) -> Tensor:
        """The smallest tail score over the groups, (B, D) for scores (B, D); NaN as in `Tails`."""
        return self._curve(scores).amin(0)

    def of_array(self, scores: Array) -> Array:
        """The same for tails on the CPU; see `quiet`."""
        least: Array = self._curve.of_array(scores).min(0)
        return least

    def of_float(self, column: int, score: float) -> float:
        """The same for one finite score, of tails on the CPU, in plain floats."""
        least = math.inf
        for knots, rise, slopes in self._lines[column]:
            piece = bisect_right(knots, score) - 1
            value = rise[0] if piece < 0 else rise[piece] + (score - knots[piece]) * slopes[piece]
            if value < least:
                least = value
        return least

    def _plain(self) -> list[list[tuple[list[float], list[float], list[float]]]]:
        """By score and group: the knots, the value at each, and the slope from each on."""
        knots, slopes = self._knots.numpy(), self._slopes.numpy()
        return [
            [
                (each, list(accumulate(rises, initial=-float(_START))), slope)
                for each, rises, slope in zip(
                    knots[:, d].tolist(),
                    (np.diff(knots[:, d], axis=-1) * slopes[:, d, :-1]).tolist(),
                    slopes[:, d].tolist(),
                    strict=True,
                )
            ]
            for d in range(knots.shape[1])
        ]


class _Curve:
    """The piecewise linear functions of scores (B, D), for knots and slopes (..., D, K).

    A sum of what each piece adds, all of it positive: where scores tie, pieces are short and steep,
    and differences of their slopes would cancel out all digits.
    """

    def __init__(self, knots: Tensor, slopes: Tensor) -> None:
        parts = knots, slopes, _widths(knots)
        self._parts = [part.unsqueeze(-3) for part in parts]  # (..., 1, D, K)
        self._arrays: list[Array] = []
        if knots.device.type == "cpu":
            # (K, ..., D, 1), so that numpy runs along samples, and adds up whole pieces.
            self._arrays = [part.movedim(-1, 0)[..., None].contiguous().numpy() for part in parts]

    def __call__(self, scores: Tensor) -> Tensor:
        """Return (..., B, D); NaN where a score is not finite."""
        knots, slopes, widths = self._parts
        covered = torch.minimum((scores[..., None] - knots).clamp_min(0), widths)
        # A score of -inf would be clamped to an ordinary value: 0 * inf keeps it visible as NaN.
        return (covered * slopes).sum(-1) - float(_START) + scores * 0

    def of_array(self, scores: Array) -> Array:
        """The same in numpy, which starts an operation in a fraction of the time torch takes.

        Worth it for a chain of operations only: a single curve amid operations of torch takes
        longer this way, and not shorter, as it does when timed by itself.
        """
        knots, slopes, widths = self._arrays
        columns = scores.T
        covered = columns - knots  # (K, ..., D, B)
        np.maximum(covered, _ZERO, out=covered)
        np.minimum(covered, widths, out=covered)
        covered *= slopes
        found: Array = np.add.reduce(covered, 0)
        found += columns * _ZERO - _START
        return found.swapaxes(-1, -2)


def _widths(knots: Tensor) -> Tensor:
    """Of the pieces from each knot to the next, (..., K); the last is endless."""
    return F.pad(knots[..., 1:] - knots[..., :-1], (0, 1), value=math.inf)
