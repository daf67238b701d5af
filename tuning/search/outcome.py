"""What a policy does to recorded samples: false alarms, accuracy, and what attacks still get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from detectors.binomial import lower_bound, upper_bound
from detectors.calibration import Calibration
from detectors.rule import Threshold
from tuning.search.fusing import Fuser, Judged, held
from tuning.search.recorded import CLEAN, Flags, Half, Recorded, Samples
from tuning.search.space import Candidate, Space

SEARCHED, HELD = "searched", "held-out"
FLAGGED = 0.5
"""What a wrong answer counts that is served and flagged: somebody can act on it, too late."""
_BOTH_SIDES = 0.975


@dataclass(frozen=True, slots=True)
class Count:
    """So many of so many."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """0 where there are none at all."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, Clopper-Pearson, both sides."""
        if not self.total:
            return 0.0, 1.0
        return (
            lower_bound(self.count, self.total, _BOTH_SIDES),
            upper_bound(self.count, self.total, _BOTH_SIDES),
        )

    def __add__(self, other: Count) -> Count:
        return Count(self.count + other.count, self.total + other.total)


@dataclass(frozen=True, slots=True)
class Attacked:
    """What a policy does to one attack's samples, all of which fool the bare model."""

    missed: Count
    """Served a wrong answer, unflagged."""
    wrong: Count
    """Served a wrong answer, flagged or not."""
    right: Count
    """Served the right one."""

    @property
    def harm(self) -> float:
        """Wrong answers served, those that are flagged at `FLAGGED`: 0 none, 1 all unflagged."""
        return FLAGGED * (self.missed.share + self.wrong.share)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy on one half of the samples."""

    threshold: Threshold
    alarms: Mapping[str, Count]
    """Benign group -> samples flagged, of this half."""
    calibrated: Mapping[str, Count]
    """Benign group -> samples flagged, of those the threshold rests on."""
    accuracy: Count | None
    """Clean samples answered right; None where nobody knows what is right."""
    undefended: Count | None
    """The same without a defence."""
    attacks: Mapping[str, Attacked]
    reached: npt.NDArray[np.float64] = field(compare=False)
    """(levels,) share of clean samples settled at each level of the cascade."""
    levels: tuple[tuple[str, ...], ...] = ()

    @property
    def worst_group(self) -> str:
        """The benign group that is flagged most, on all evidence."""
        return max(self.alarms, key=lambda group: self.expected(group).share)

    def expected(self, group: str) -> Count:
        """Samples of a group flagged, the calibration's own with this half's."""
        return self.alarms[group] + self.calibrated.get(group, Count(0, 0))

    @property
    def fpr(self) -> float:
        """Share of the worst benign group that is flagged, on all evidence."""
        return self.expected(self.worst_group).share

    @property
    def loss(self) -> float:
        """Accuracy lost on clean samples, as a share."""
        if self.accuracy is None or self.undefended is None:
            return 0.0
        return self.undefended.share - self.accuracy.share

    def flagged_clean(self) -> float:
        """Share of ordinary requests that are flagged."""
        group = CLEAN if CLEAN in self.alarms else self.worst_group
        return self.expected(group).share

    def harm(self, attacks: Iterable[str]) -> float:
        """The mean over some attacks; 0 where there are none of them."""
        known = [self.attacks[name].harm for name in attacks if name in self.attacks]
        return float(np.mean(known)) if known else 0.0


class Bench:
    """Judges candidates on the halves of a recorded evaluation.

    Args:
        fuser: over the samples that `samples_of` names.
    """

    def __init__(self, recorded: Recorded, space: Space, fuser: Fuser) -> None:
        self._recorded, self._space, self._fuser = recorded, space, fuser

    def outcome(self, candidate: Candidate, half: str = SEARCHED) -> Outcome:
        """What a candidate does on one half.

        Raises:
            CalibrationError: the calibration does not support its rate.
        """
        judged = self._fuser.judge(self._space, candidate)
        chosen = self._recorded.searched if half == SEARCHED else self._recorded.held
        clean = CLEAN if CLEAN in chosen.benign else next(iter(chosen.benign))
        accuracy, undefended = self._accuracy(candidate, judged, chosen.benign[clean], half, clean)
        settled = [judged.reached[key(half, "benign", clean)]]
        if held(clean) in judged.reached:
            settled.append(judged.reached[held(clean)])
        reached = np.concatenate(settled)
        return Outcome(
            judged.threshold,
            {g: _count(judged.flagged(key(half, "benign", g))) for g in chosen.benign},
            {g: _count(judged.flagged(held(g))) for g in chosen.benign if held(g) in judged.fused},
            accuracy,
            undefended,
            {
                name: self._attacked(candidate, each, judged.flagged(key(half, "attack", name)))
                for name, each in chosen.attacks.items()
            },
            np.bincount(reached, minlength=len(judged.levels)) / max(len(reached), 1),
            judged.levels,
        )

    def flagged(self, candidate: Candidate, half: str, role: str, name: str) -> Flags:
        """Which samples of a set a candidate flags."""
        return self._fuser.judge(self._space, candidate).flagged(key(half, role, name))

    def right(self, candidate: Candidate, each: Samples, flagged: Flags) -> Flags:
        """Which samples are served the right answer; of attacks on a bare model, none is."""
        if each.right is None:
            return np.zeros(len(flagged), np.bool_)
        plain = each.right[:, 0]
        if candidate.action == "block":
            return plain & ~flagged
        if candidate.action != "purify":
            return plain
        way = self._recorded.ways.index(candidate.chain)
        return np.where(flagged, each.right[:, way], plain)

    def _accuracy(
        self, candidate: Candidate, judged: Judged, each: Samples, half: str, group: str
    ) -> tuple[Count | None, Count | None]:
        if each.right is None:
            return None, None
        right = self.right(candidate, each, judged.flagged(key(half, "benign", group)))
        return _count(right), _count(each.right[:, 0])

    def _attacked(self, candidate: Candidate, each: Samples, flagged: Flags) -> Attacked:
        right = self.right(candidate, each, flagged)
        refused = flagged if candidate.action == "block" else np.zeros(len(flagged), np.bool_)
        wrong = ~right & ~refused
        return Attacked(_count(wrong & ~flagged), _count(wrong), _count(right))


def key(half: str, role: str, name: str) -> str:
    """The name of a set of samples."""
    return f"{half}/{role}/{name}"


def bench_of(recorded: Recorded, space: Space, calibration: Calibration) -> Bench:
    """A bench over all samples of both halves."""
    samples = {
        key(name, role, kind): each.scores
        for name, half in ((SEARCHED, recorded.searched), (HELD, recorded.held))
        for role, kinds in _roles(half)
        for kind, each in kinds.items()
    }
    return Bench(recorded, space, Fuser(calibration, recorded.detectors, samples))


def _roles(half: Half) -> tuple[tuple[str, Mapping[str, Samples]], ...]:
    return ("benign", half.benign), ("attack", half.attacks)


def _count(flags: Flags) -> Count:
    return Count(int(flags.sum()), len(flags))
