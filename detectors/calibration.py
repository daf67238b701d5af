"""From scores to decisions: fused scores, their thresholds, and p-values for reports.

A `Calibration` holds one fusion for every set of detectors that may be there at run time. It reads
and writes no files: `tensors` and `meta` are what a caller saves, `from_tensors` restores them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from detectors.binomial import upper_bound
from detectors.fusion import Fusion
from detectors.tails import Tails

V = TypeVar("V")

FIT_SHARE = 1 / 3
"""Share of each group the fusion is fitted on; thresholds need the larger, untouched part."""
_LEAST_SAMPLES = 30
"""Fewest samples of a group: 10 for the fusion, 20 for any threshold at all."""


class CalibrationError(ValueError):
    """The calibration data is unusable, or something it does not cover was asked of it."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The fused score above which a sample is suspicious."""

    value: float
    fpr: float
    """The wanted false-positive rate, held on average over calibration draws in every group."""
    fpr_upper: float
    """Upper 95 % confidence bound of the rate for this very draw, the largest over the groups."""
    samples: int
    """Benign samples the threshold rests on: those of the worst group."""
    worst_group: str
    """The benign group that needs the highest threshold, and so sets it."""


class Calibration:
    """Benign scores of every detector and fused benign scores of every set; see `fit`."""

    def __init__(
        self,
        mix: Mapping[str, Tensor],
        fusions: Sequence[Fusion],
        fused: Sequence[Mapping[str, Tensor]],
    ) -> None:
        self._mix = dict(mix)  # detector -> (n,) ascending benign scores, all groups together
        self._fusions = {frozenset(fusion.names): fusion for fusion in fusions}
        self._fused = {  # set -> group -> (n_g,) ascending fused scores
            frozenset(fusion.names): dict(groups)
            for fusion, groups in zip(fusions, fused, strict=True)
        }
        self._stacked: dict[tuple[str, ...], Tensor] = {}

    @classmethod
    def fit(
        cls,
        groups: Mapping[str, Mapping[str, Tensor]],
        sets: Sequence[Sequence[str]],
        *,
        seed: int = 0,
    ) -> Calibration:
        """Learn from benign scores of samples no detector was fitted on.

        Args:
            groups: benign group -> detector -> (n_g,) scores.
            sets: the detectors that may be there together at run time, one set for each.
            seed: of the split into the fusion's part and the thresholds' part.

        Raises:
            CalibrationError: no group, a group too small, scores missing, of unequal number or
                not finite.
        """
        names = sorted({name for members in sets for name in members})
        _check(groups, names)
        fitting: list[dict[str, Tensor]] = []
        held: dict[str, dict[str, Tensor]] = {}
        for group, scores in groups.items():
            count = scores[names[0]].shape[0]
            # Equal groups are split alike, so variations of one image stay on one side.
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
            first, rest = order.tensor_split([round(count * FIT_SHARE)])
            fitting.append({name: scores[name].float().cpu()[first] for name in names})
            held[group] = {name: scores[name].float().cpu()[rest] for name in names}
        mix = {n: torch.cat([held[group][n] for group in held]).sort().values for n in names}
        fusions = [Fusion.fit(sorted(members), fitting) for members in sets]
        fused = [{g: fusion(held[g]).sort().values for g in held} for fusion in fusions]
        return cls(mix, fusions, fused)

    @property
    def sets(self) -> tuple[frozenset[str], ...]:
        """The sets of detectors that can be fused."""
        return tuple(self._fusions)

    @property
    def groups(self) -> tuple[str, ...]:
        """The benign groups."""
        return tuple(next(iter(self._fused.values())))

    def p_values(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Conformal p-values over the benign mix, for reports: (1 + #{benign >= s}) / (n + 1).

        Args:
            scores: detector -> (B,).

        Returns:
            detector -> (B,) in (0, 1]; NaN where the score is not finite.

        Raises:
            CalibrationError: a detector was not calibrated.
        """
        names = tuple(scores)
        if not names:
            return {}
        if names not in self._stacked:
            unknown = sorted(set(names) - set(self._mix))
            if unknown:
                raise CalibrationError(f"not calibrated: {unknown}; there are {sorted(self._mix)}")
            self._stacked[names] = torch.stack([self._mix[name] for name in names])
        benign = self._stacked[names]  # (D, n)
        stacked = torch.stack(list(scores.values()))  # (D, B)
        below = torch.searchsorted(benign, stacked)
        total = benign.shape[1]
        # 0 * score is NaN for scores that are not finite, and 0 for the others.
        p = (total + 1 - below) / (total + 1) + stacked * 0
        return dict(zip(names, p.unbind(0), strict=True))

    def fuse(self, scores: Mapping[str, Tensor]) -> Tensor:
        """Return the fused score of each sample, (B,); NaN where any score is not finite.

        Args:
            scores: detector -> (B,), of exactly the detectors of one calibrated set.

        Raises:
            CalibrationError: these detectors were not calibrated together.
        """
        return self._set(self._fusions, scores)(scores)

    def threshold(self, names: Iterable[str], fpr: float) -> Threshold:
        """Return the threshold at a wanted false-positive rate, for the worst benign group.

        In each group it is the ceil((n + 1)(1 - fpr))-th smallest fused score: a fresh benign
        sample of that group exceeds it with probability at most fpr.

        Raises:
            CalibrationError: fpr is not in (0, 1), there is no such set, or a group has too few
                samples for this fpr; the text says how many it takes.

        Source: Vovk, Gammerman, Shafer 2005, Mondrian (group-conditional) conformal prediction.
        """
        if not 0 < fpr < 1:
            raise CalibrationError(f"fpr must be between 0 and 1, not {fpr}")
        groups = self._set(self._fused, names)
        values = {group: _quantile(group, fused, fpr) for group, fused in groups.items()}
        worst = max(values, key=values.__getitem__)
        value = values[worst]
        bounds = [
            upper_bound(int((fused > value).sum()), fused.numel()) for fused in groups.values()
        ]
        return Threshold(value, fpr, max(bounds), groups[worst].numel(), worst)

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned, flat, for safetensors; with `meta` the inverse of `from_tensors`."""
        tensors = {f"mix.{name}": scores for name, scores in self._mix.items()}
        for i, (members, fusion) in enumerate(self._fusions.items()):
            tensors |= {f"set{i}.{key}": part for key, part in fusion.tails.state().items()}
            for group, fused in self._fused[members].items():
                tensors[f"set{i}.fused.{group}"] = fused
        return {key: tensor.contiguous().cpu() for key, tensor in tensors.items()}

    def meta(self) -> dict[str, Any]:
        """What `from_tensors` needs besides the tensors, fit for JSON."""
        return {
            "sets": [list(fusion.names) for fusion in self._fusions.values()],
            "groups": list(self.groups),
        }

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        meta: Mapping[str, Any],
        device: torch.device | str = "cpu",
    ) -> Calibration:
        """Restore a calibration, ready to score on the given device.

        Raises:
            CalibrationError: tensors and meta do not belong together.
        """
        place = torch.device(device)
        try:
            names = sorted({name for members in meta["sets"] for name in members})
            mix = {name: tensors[f"mix.{name}"].to(place) for name in names}
            fusions, fused = [], []
            for i, members in enumerate(meta["sets"]):
                state = {key: tensors[f"set{i}.{key}"] for key in ("knots", "slopes")}
                fusions.append(Fusion(members, Tails.from_state(state, place)))
                fused.append({g: tensors[f"set{i}.fused.{g}"].cpu() for g in meta["groups"]})
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"the calibration is incomplete: {error!r}") from error
        return cls(mix, fusions, fused)

    def _set(self, by_set: Mapping[frozenset[str], V], names: Iterable[str]) -> V:
        wanted = frozenset(names)
        if wanted not in by_set:
            have = "; ".join(", ".join(sorted(members)) for members in self._fusions)
            raise CalibrationError(f"no calibration for {sorted(wanted)}; there is: {have}")
        return by_set[wanted]


def _check(groups: Mapping[str, Mapping[str, Tensor]], names: Sequence[str]) -> None:
    if not groups or not names:
        raise CalibrationError("needs at least one benign group and one detector")
    for group, scores in groups.items():
        missing = [name for name in names if name not in scores]
        if missing:
            raise CalibrationError(f"group {group!r} has no scores of {missing}")
        sizes = {scores[name].numel() for name in names}
        if len(sizes) > 1 or min(sizes) < _LEAST_SAMPLES:
            raise CalibrationError(
                f"group {group!r} has {sorted(sizes)} scores; needs {_LEAST_SAMPLES} or more of "
                "each detector, and equally many"
            )
        for name in names:
            if not torch.isfinite(scores[name]).all():
                raise CalibrationError(f"group {group!r}: {name} has scores that are not finite")


def _quantile(group: str, fused: Tensor, fpr: float) -> float:
    """The conformal quantile of ascending scores."""
    count = fused.numel()
    exceed = math.floor((count + 1) * fpr + 1e-9)  # 1e-9: 100 * 0.01 must count as 1
    if exceed < 1:
        needed = math.ceil(1 / fpr - 1e-9) - 1
        images = math.ceil(needed / (1 - FIT_SHARE))
        raise CalibrationError(
            f"benign group {group!r} has {count} samples for thresholds; a false-positive rate of "
            f"{fpr:g} needs {needed}, that is {images} calibration images; the least rate these "
            f"support is {1 / (count + 1):.3g}"
        )
    return float(fused[count - exceed])
