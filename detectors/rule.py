"""A rule: which detectors, fused how, above which score a sample is suspicious."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.binomial import upper_bound
from detectors.fusion import Bounds, Fusion, Learner
from detectors.secrecy import Secrecy

FIT_SHARE = 1 / 3
"""Share of each benign group the fusions are fitted on; thresholds need the larger, untouched part.
"""


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


@dataclass(frozen=True, slots=True)
class Cascade:
    """When cheap evidence is enough, both as shares of benign samples of the worst group.

    A sample stops at a level where it is less suspicious than `clean` says or more than
    `suspicious` says; the others go on to dearer evidence.
    """

    clean: float = 0.5
    """Stop, unsuspicious, when at least this share of benign samples looks more suspicious. 1: at
    no sample, since all scores are above 0 on the scale of rules."""
    suspicious: float = 0.001
    """Stop, suspicious, when at most this share of benign samples looks more suspicious."""

    def __post_init__(self) -> None:
        if not 0 < self.suspicious < self.clean <= 1:
            raise CalibrationError(
                f"a cascade needs 0 < suspicious < clean <= 1, not {self.suspicious} and "
                f"{self.clean}"
            )

    def settles(self, fused: Tensor) -> Tensor:
        """Which samples need no dearer evidence, (B,) bool; never those without a finite score."""
        return (fused <= -math.log(self.clean)) | (fused >= -math.log(self.suspicious))


class Rule:
    """Scores on the scale -log(benign tail share), and the threshold at one false-positive rate.

    Made by `Calibration.rule`. Whoever gathers evidence level by level takes `fuse` and `settles`
    at each; `score` is the same for samples with all scores there.

    Args:
        fusions: of the detectors at each level; the last has all.
        cascades: when to stop, one for each level but the last.
        threshold: of the scores that come of it.
    """

    def __init__(
        self,
        fusions: Sequence[Fusion],
        cascades: Sequence[Cascade],
        threshold: Threshold,
    ) -> None:
        self._fusions = tuple(fusions)
        self._cascades = tuple(cascades)
        self.threshold = threshold

    @classmethod
    def fit(
        cls,
        levels: Sequence[Sequence[str]],
        fitting: Mapping[str, Tensor],
        held: Mapping[str, Tensor],
        fprs: Sequence[float],
        *,
        learners: Mapping[frozenset[str], Learner],
        cascades: Sequence[Cascade],
        secrecy: Secrecy | None,
        device: torch.device,
    ) -> list[Rule]:
        """Fit a fusion for each level, and set the threshold for the rule as a whole.

        The fusions do not depend on the rate: the rules have them in common.

        Args:
            levels: the detectors of each level used; the last has all columns, in their order.
            fitting: group -> (n, D), what fusions learn from.
            held: group -> (m, D), what the threshold rests on.
            fprs: the wanted false-positive rates, a rule for each.
            learners: detectors of a level -> the score learned over them.
            cascades: when a sample stops, one for each level but the last.
        """
        if len(cascades) != len(levels) - 1:
            raise CalibrationError(f"{len(levels)} levels, and {len(cascades)} ways to stop")
        names = tuple(levels[-1])
        cpu = [_fusion(level, names, fitting, learners, secrecy, "cpu") for level in levels]
        draft = cls(cpu, cascades, Threshold(math.inf, 1.0, 1.0, 0, ""))
        fused = {
            group: draft.score(dict(zip(names, scores.T, strict=True))).sort().values
            for group, scores in held.items()
        }
        if device.type != "cpu":
            cpu = [_fusion(level, names, fitting, learners, secrecy, device) for level in levels]
        return [cls(cpu, cascades, worst_threshold(fused, fpr)) for fpr in fprs]

    @property
    def names(self) -> tuple[str, ...]:
        """The detectors whose scores it takes."""
        return self._fusions[-1].names

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """The detectors that have looked at a sample by each level, the last with all."""
        return tuple(fusion.names for fusion in self._fusions)

    def fuse(self, level: int, scores: Mapping[str, Tensor]) -> Tensor:
        """The fused score at one level by itself, (B,); NaN where a score is not finite."""
        return self._fusions[level](scores)

    def bounds(self, scores: Mapping[str, Bounds]) -> Bounds | None:
        """Bounds on what `fuse` gives one sample at the last level; see `Fusion.bounds`."""
        return self._fusions[-1].bounds(scores)

    def settles(self, level: int, fused: Tensor) -> Tensor:
        """Which samples a level's fused score is the last word on, (B,) bool; at the last, all."""
        if level == len(self._cascades):
            return torch.ones_like(fused, dtype=torch.bool)
        return self._cascades[level].settles(fused)

    def score(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The fused score of each sample, (B,); NaN where a score it rests on is not finite.

        Args:
            scores: detector -> (B,). With a cascade, a sample that an earlier level settles has
                its score from there, whatever the dearer detectors would say.
        """
        fused = self._fusions[-1](scores)
        for level in reversed(range(len(self._cascades))):
            early = self._fusions[level](scores)
            fused = torch.where(self.settles(level, early), early, fused)
        return fused

    def settle(self, scores: Mapping[str, Tensor]) -> Tensor | None:
        """The scores of samples that need no dearer evidence, (B,), NaN for those that do.

        Args:
            scores: of exactly the detectors of one of the cascade's earlier levels.

        Returns:
            None where there is no such level: everything is to be gathered.
        """
        for position in range(len(self._cascades)):
            if set(self._fusions[position].names) == set(scores):
                done, cascades = self._fusions[: position + 1], self._cascades[:position]
                fused = Rule(done, cascades, self.threshold).score(scores)
                return torch.where(self.settles(position, fused), fused, torch.nan)
        return None


def _fusion(
    level: Sequence[str],
    names: Sequence[str],
    groups: Mapping[str, Tensor],
    learners: Mapping[frozenset[str], Learner],
    secrecy: Secrecy | None,
    device: torch.device | str,
) -> Fusion:
    columns = [names.index(name) for name in level]
    learner = learners.get(frozenset(level))
    ordered = tuple(level) if learner is None else learner.names
    if learner is not None:
        columns = [names.index(name) for name in ordered]
    return Fusion(
        ordered,
        {group: scores[:, columns] for group, scores in groups.items()},
        learner=None if secrecy else learner,
        weights=secrecy.weights(ordered) if secrecy else None,
        device=device,
    )


def worst_threshold(fused: Mapping[str, Tensor], fpr: float) -> Threshold:
    """The largest conformal quantile over the groups.

    Args:
        fused: benign group -> fused scores no fusion was fitted on, (n,), ascending.
        fpr: wanted false-positive rate.

    Raises:
        CalibrationError: a group has too few samples for this rate.

    In each group it is the ceil((n + 1)(1 - fpr))-th smallest fused score: a fresh benign sample of
    that group exceeds it with probability at most fpr.

    Source: Vovk, Gammerman, Shafer 2005, Mondrian (group-conditional) conformal prediction.
    """
    values = {group: _quantile(group, scores, fpr) for group, scores in fused.items()}
    worst = max(values, key=values.__getitem__)
    value = values[worst]
    bounds = [upper_bound(int((each > value).sum()), each.numel()) for each in fused.values()]
    return Threshold(value, fpr, max(bounds), fused[worst].numel(), worst)


def _quantile(group: str, fused: Tensor, fpr: float) -> float:
    """The conformal quantile of ascending scores."""
    count = fused.numel()
    exceed = math.floor((count + 1) * fpr + 1e-9)  # 1e-9: 100 * 0.01 must count as 1
    if exceed < 1:
        needed = math.ceil(1 / fpr - 1e-9) - 1
        raise CalibrationError(
            f"benign group {group!r} has {count} samples for thresholds; a false-positive rate of "
            f"{fpr:g} needs {needed}, that is {math.ceil(needed / (1 - FIT_SHARE))} calibration "
            f"images; the least rate these support is {1 / (count + 1):.3g}"
        )
    return float(fused[count - exceed])
