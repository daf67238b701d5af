"""A calibration from recorded live scores: screened, trimmed, and only on enough evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from detectors.binomial import upper_bound
from detectors.calibration import Calibration
from detectors.rule import FIT_SHARE, CalibrationError, Rule, Threshold
from proxy.errors import ConfigError
from tuning.drift import Excess, Shift, excesses, shifts, tail_thresholds
from tuning.live_scores import Scores, Traffic
from tuning.screening import SHARE, Spacing, Step, highest, screen
from tuning.sufficiency import check_enough

GROUP = "live"
"""The benign group that live traffic becomes."""
MOST_EXCESS = 3
"""Times the wanted rate that may be trimmed as contamination; past it nobody can tell an attack
from a change of the benign traffic by the scores alone."""
_RATES = (2.0, 1.0, 0.5)
"""Times the wanted rate: where the tail is compared with the previous calibration's."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What kind of calibration is asked for."""

    fpr: float
    replace: bool = False
    """Rest on live traffic alone, instead of on the previous benign groups as well."""
    accept_drift: bool = False
    """Take an excess in the tail for benign: nothing is trimmed, and nothing refused for it."""
    share: float = SHARE
    """Of the samples left, the most that one principal may give."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """The thresholds of one evidence level, before and after."""

    name: str
    old: Threshold
    new: Threshold
    live_upper: float
    """Upper 95 % bound of the rate in live traffic, if all that was trimmed was no benign traffic.
    """
    live_upper_untrimmed: float
    """The same if all of it was."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A calibration from live traffic, and how it came about."""

    calibration: Calibration
    steps: tuple[Step, ...]
    trimmed: int
    found: tuple[Excess, ...]
    """Excesses in the tail, whatever was made of them."""
    shifts: tuple[Shift, ...]
    levels: tuple[Level, ...]
    flagged: tuple[float, float]
    """Share of all recorded samples with all scores above the old threshold, and the new one."""
    scores: Scores
    """Those of the new group, (n, D)."""


def build(
    previous: Calibration, traffic: Traffic, levels: Mapping[str, Sequence[str]], wanted: Wanted
) -> Outcome:
    """Screen what was recorded, and calibrate on it.

    Args:
        previous: the calibration in force while it was recorded; of the same detectors.
        traffic: what was recorded.
        levels: evidence level -> its detectors; the last has all.

    Raises:
        TooFew: more samples are needed.
        ConfigError: an attack, or another kind of traffic; or the rate cannot be had at all.
    """
    names = traffic.detectors
    groups = _numpy(previous, names)
    screened = screen(traffic, Spacing(groups), share=wanted.share, seed=wanted.seed)
    check_enough(len(screened.rows), screened.steps, fpr=wanted.fpr, share=wanted.share)
    fused, found = _tail(previous, names, groups, traffic.scores[screened.rows], wanted.fpr)
    count = 0 if wanted.accept_drift else _trimmable(found, len(fused), wanted.fpr)
    top = highest(traffic, screened.rows, fused, count)
    rows = screened.rows[~top]
    steps = (
        *screened.steps,
        Step("above what chance explains (trimmed)", int(top.sum()), len(rows)),
    )
    check_enough(len(rows), steps, fpr=wanted.fpr, share=wanted.share)
    calibration = _calibration(previous, names, traffic.scores[rows], wanted)
    whole = ~np.isnan(traffic.scores).any(axis=1)
    return Outcome(
        calibration,
        steps,
        int(top.sum()),
        found,
        shifts(names, traffic.scores[rows], groups),
        _levels(previous, calibration, levels, traffic.scores[screened.rows[top]], wanted.fpr),
        _flagged(previous, calibration, names, traffic.scores[whole], wanted.fpr),
        traffic.scores[rows],
    )


def _tail(
    previous: Calibration,
    names: Sequence[str],
    groups: Mapping[str, Scores],
    scores: Scores,
    fpr: float,
) -> tuple[Scores, tuple[Excess, ...]]:
    """Fused scores by the previous calibration, and where more of them are high than should be."""
    if fpr < previous.least_fpr:
        raise ConfigError(
            f"the previous calibration has no threshold for a false-positive rate of {fpr:g} to "
            f"compare with: the least that its groups support is {previous.least_fpr:.3g}"
        )
    rates = [rate for times in _RATES if previous.least_fpr <= (rate := times * fpr) < 1]
    rules = previous.rules([names], rates)
    fused = _fused(rules[0], names, scores)
    values = {rule.threshold.fpr: rule.threshold.value for rule in rules}
    benign = {group: _fused(rules[0], names, each) for group, each in groups.items()}
    return fused, excesses(fused, values | tail_thresholds(values, benign, len(fused)))


def _trimmable(found: Sequence[Excess], total: int, fpr: float) -> int:
    """How many samples to trim, the largest excess found.

    Raises:
        ConfigError: so many that it is another kind of traffic, or an attack.
    """
    worst = max(found, key=lambda excess: excess.samples, default=None)
    if worst is None:
        return 0
    if worst.samples > MOST_EXCESS * fpr * total:
        raise ConfigError(
            f"attack or drift: {worst.above} of {total} samples ({worst.above / total:.1%}) are "
            f"above the previous calibration's threshold for {worst.rate:.2%}, far more than "
            "chance explains. Look at them with `breakwater suspicious` and label them with "
            "`breakwater label`, or calibrate on data you know (--data); --accept-drift takes them "
            "for benign"
        )
    return math.ceil(worst.samples)


def _calibration(
    previous: Calibration, names: Sequence[str], scores: Scores, wanted: Wanted
) -> Calibration:
    by_name = {
        name: torch.from_numpy(column.astype(np.float32))
        for name, column in zip(names, scores.T, strict=True)
    }
    try:
        if wanted.replace:
            alone = Calibration.fit({GROUP: by_name}, seed=wanted.seed)
            return alone.with_learners(previous.learners)
        return previous.with_group(GROUP, by_name, seed=wanted.seed)
    except CalibrationError as error:
        raise ConfigError(str(error)) from error


def _levels(
    previous: Calibration,
    calibration: Calibration,
    levels: Mapping[str, Sequence[str]],
    trimmed: Scores,
    fpr: float,
) -> tuple[Level, ...]:
    made = []
    for level, names in levels.items():
        try:
            old, new = (each.rule([names], fpr) for each in (previous, calibration))
        except CalibrationError as error:
            raise ConfigError(str(error)) from error
        columns = [calibration.names.index(name) for name in names]
        held = calibration.held(names)[GROUP].numpy().astype(np.float64)
        over, cut = (
            _fused(new, names, scores) > new.threshold.value
            for scores in (held, trimmed[:, columns])
        )
        # As many of the trimmed would have been in the thresholds' part.
        part = math.ceil(len(cut) * (1 - FIT_SHARE))
        above = math.ceil(int(cut.sum()) * (1 - FIT_SHARE))
        count, total = int(over.sum()), len(over)
        made.append(
            Level(
                level,
                old.threshold,
                new.threshold,
                upper_bound(count, total),
                upper_bound(min(count + above, total + part), total + part),
            )
        )
    return tuple(made)


def _flagged(
    previous: Calibration,
    calibration: Calibration,
    names: Sequence[str],
    scores: Scores,
    fpr: float,
) -> tuple[float, float]:
    old, new = (each.rule([names], fpr) for each in (previous, calibration))
    before, after = (
        float((_fused(rule, names, scores) > rule.threshold.value).mean()) for rule in (old, new)
    )
    return before, after


def _numpy(calibration: Calibration, names: Sequence[str]) -> dict[str, Scores]:
    return {
        group: scores.numpy().astype(np.float64)
        for group, scores in calibration.held(names).items()
    }


def _fused(rule: Rule, names: Sequence[str], scores: Scores) -> Scores:
    """The rule's scores of (n, D), (n,)."""
    columns = torch.from_numpy(np.ascontiguousarray(scores.T, dtype=np.float32))
    fused: Scores = rule.score(dict(zip(names, columns, strict=True))).numpy().astype(np.float64)
    return fused
