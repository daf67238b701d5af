"""From scores to decisions: rules with thresholds, and p-values for reports.

A `Calibration` is the benign scores of every detector, kept apart by benign group; whatever set of
detectors is there at run time, at whatever false-positive rate, its `Rule` follows from them. It
reads and writes no files: `tensors` and `meta` are what a caller saves, `from_tensors` restores
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detectors.fusion import Learner
from detectors.rule import CalibrationError, Cascade, Rule
from detectors.scored_groups import check, split
from detectors.secrecy import Secrecy

Matrices = Mapping[str, Tensor]
"""Benign group -> (n_g, D) scores, a column for each detector."""


class Calibration:
    """Benign scores of every detector, and the rules that follow; see `fit`.

    Args:
        names: the detectors, in the order of the columns.
        fitting: the samples that fusions are fitted on.
        held: the samples that thresholds rest on.
        learners: learned scores, each over the detectors of one evidence level.
    """

    def __init__(
        self,
        names: Sequence[str],
        fitting: Matrices,
        held: Matrices,
        learners: Sequence[Learner] = (),
    ) -> None:
        self.names = tuple(names)
        self.learners = tuple(learners)
        self._fitting, self._held = dict(fitting), dict(held)
        self._device = torch.device("cpu")
        self._mix = torch.cat(list(held.values())).T.sort(dim=1).values.contiguous()  # (D, n)

    @classmethod
    def fit(cls, groups: Mapping[str, Mapping[str, Tensor]], *, seed: int = 0) -> Calibration:
        """Learn from benign scores of samples no detector was fitted on.

        Args:
            groups: benign group -> detector -> (n_g,) scores.
            seed: of the split into the fusions' part and the thresholds' part.

        Raises:
            CalibrationError: no group, a group too small, scores missing, of unequal number or
                not finite.
        """
        names = sorted({name for scores in groups.values() for name in scores})
        check(groups, names)
        return cls(names, *split(groups, names, seed))

    @property
    def groups(self) -> tuple[str, ...]:
        """The benign groups."""
        return tuple(self._held)

    @property
    def least_fpr(self) -> float:
        """The least false-positive rate that the smallest group supports."""
        return 1 / (min(len(scores) for scores in self._held.values()) + 1)

    def fitting(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The scores fusions of these detectors are fitted on: group -> (n, D)."""
        columns = self._columns(names)
        return {group: scores[:, columns] for group, scores in self._fitting.items()}

    def benign(self, name: str) -> Tensor:
        """One detector's benign scores, all groups of the thresholds' part together, ascending."""
        (column,) = self._columns([name])
        return self._mix[column]

    def with_learners(self, learners: Sequence[Learner]) -> Calibration:
        """The same calibration with learned scores besides."""
        return Calibration(self.names, self._fitting, self._held, learners)

    def held(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The scores thresholds of these detectors rest on: group -> (m, D)."""
        columns = self._columns(names)
        return {group: scores[:, columns] for group, scores in self._held.items()}

    def with_group(self, group: str, scores: Mapping[str, Tensor], *, seed: int = 0) -> Calibration:
        """The same calibration with one more benign group, or with another in that one's place.

        Args:
            group: its name.
            scores: of all detectors, (n,) each, of samples no detector was fitted on.
            seed: of the split into the fusions' part and the thresholds' part.

        Raises:
            CalibrationError: as `fit` does.
        """
        check({group: scores}, self.names)
        fitting, held = split({group: scores}, self.names, seed)
        return Calibration(
            self.names, self._fitting | fitting, self._held | held, self.learners
        ).to(self._device)

    def p_values(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Conformal p-values over the benign mix, for reports: (1 + #{benign >= s}) / (n + 1).

        Args:
            scores: detector -> (B,).

        Returns:
            detector -> (B,) in (0, 1]; NaN where the score is not finite.

        Raises:
            CalibrationError: a detector was not calibrated.
        """
        if not scores:
            return {}
        benign = self._mix[self._columns(list(scores))]  # (D, n)
        stacked = torch.stack(list(scores.values()))  # (D, B)
        below = torch.searchsorted(benign, stacked)
        total = benign.shape[1]
        # 0 * score is NaN for scores that are not finite, and 0 for the others.
        p = (total + 1 - below) / (total + 1) + stacked * 0
        return dict(zip(scores, p.unbind(0), strict=True))

    def rule(
        self,
        levels: Sequence[Sequence[str]],
        fpr: float,
        *,
        cascade: Cascade | Sequence[Cascade] | None = None,
        secrecy: Secrecy | None = None,
    ) -> Rule:
        """The rule for one set of detectors at a wanted false-positive rate.

        Args:
            levels: the detectors that are there at each evidence level, each level with all of
                the one before; the last is the set the verdict rests on.
            fpr: wanted false-positive rate, held in every benign group.
            cascade: when to stop before the last level, the same at each or one for each; without
                it all levels are gathered.
            secrecy: weights of the detectors drawn from a secret.

        Raises:
            CalibrationError: fpr is not in (0, 1), a detector was not calibrated, or a group has
                too few samples for this rate; the text says how many it takes.
        """
        (rule,) = self.rules(levels, [fpr], cascade=cascade, secrecy=secrecy)
        return rule

    def rules(
        self,
        levels: Sequence[Sequence[str]],
        fprs: Sequence[float],
        *,
        cascade: Cascade | Sequence[Cascade] | None = None,
        secrecy: Secrecy | None = None,
    ) -> list[Rule]:
        """What `rule` gives at each of these rates, at the cost of one.

        Raises:
            CalibrationError: as `rule`; `least_fpr` is the least rate there is a rule for.
        """
        for fpr in fprs:
            if not 0 < fpr < 1:
                raise CalibrationError(f"fpr must be between 0 and 1, not {fpr}")
        used = levels if cascade is not None else levels[-1:]
        cascades = [cascade] * (len(used) - 1) if isinstance(cascade, Cascade) else cascade or []
        names = tuple(levels[-1])
        return Rule.fit(
            [tuple(level) for level in used],
            self.fitting(names),
            self.held(names),
            fprs,
            learners={frozenset(learner.names): learner for learner in self.learners},
            cascades=cascades,
            secrecy=secrecy,
            device=self._device,
        )

    def to(self, device: torch.device | str) -> Calibration:
        """The same calibration, computing on another device."""
        moved = Calibration(self.names, self._fitting, self._held, self.learners)
        moved._device = torch.device(device)
        moved._mix = moved._mix.to(device)
        return moved

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned, flat, for safetensors; with `meta` the inverse of `from_tensors`."""
        parts = {"fitting": self._fitting, "held": self._held}
        tensors = {
            f"{part}.{group}": scores for part, by in parts.items() for group, scores in by.items()
        }
        tensors |= {f"learner{i}": each.weights for i, each in enumerate(self.learners)}
        return {key: tensor.contiguous().cpu() for key, tensor in tensors.items()}

    def meta(self) -> dict[str, Any]:
        """What `from_tensors` needs besides the tensors, fit for JSON."""
        return {
            "detectors": list(self.names),
            "groups": list(self.groups),
            "learners": [list(learner.names) for learner in self.learners],
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
        try:
            fitting, held = (
                {group: tensors[f"{part}.{group}"].cpu() for group in meta["groups"]}
                for part in ("fitting", "held")
            )
            learners = [
                Learner(tuple(names), tensors[f"learner{i}"].cpu())
                for i, names in enumerate(meta["learners"])
            ]
            restored = cls(meta["detectors"], fitting, held, learners)
            wide = {scores.shape[1] for scores in (*fitting.values(), *held.values())}
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise CalibrationError(f"the calibration is incomplete: {error!r}") from error
        if wide != {len(restored.names)}:
            raise CalibrationError(f"the calibration has {wide} columns for {restored.names}")
        return restored.to(device)

    def _columns(self, names: Sequence[str]) -> list[int]:
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise CalibrationError(f"not calibrated: {unknown}; there are {list(self.names)}")
        return [self.names.index(name) for name in names]
