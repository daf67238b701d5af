"""One model's rules: scores to verdicts, for whatever detectors could look at a sample."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor

from detectors import calibration
from detectors.base import Detector, Need
from detectors.fusion import Bounds
from detectors.query_history import QueryHistory
from detectors.rule import CalibrationError, Cascade, Rule, Threshold
from detectors.secrecy import Secrecy
from proxy import config, policy
from proxy.cascade import Stand, levels_of
from proxy.errors import ConfigError
from proxy.flow import SampleVerdict, Verdict
from proxy.keyfile import read_key

LEVELS = tuple(Need)
"""Kinds of evidence, in order of cost."""
MOST_PREPARED = 32
"""Rules for other sets of detectors than those of the evidence levels, at most."""
MOST_WIDER = 2 * (MOST_PREPARED + len(LEVELS))
"""Thresholds whose wider ones are known: those in force, and the last epoch's."""

_CLOSE = 1e-4
"""Bounds on a score this far apart, times 1 + the score, tell it."""


class NoRule(LookupError):
    """There is no rule for this set of detectors; see `Rules.prepare`."""


class Rules:
    """The rule for each set of detectors, drawn anew in every epoch where there is a secret.

    The device thread judges while others call `rotate` and `prepare`: the rules in force are
    replaced in one assignment, and every method reads them once.

    Args:
        model: name, for errors.
        cfg: the model's configuration.
        scores: the benign scores the rules follow from.
        parts: the model's detectors.
        alarm: the history's score above which a sample is part of an attack.
        now: seconds since some fixed time, equal on all replicas.

    Raises:
        ConfigError: the calibration does not support the wanted rate, or the secret is unusable.
    """

    def __init__(
        self,
        model: str,
        cfg: config.Model,
        scores: calibration.Calibration,
        parts: Sequence[Detector],
        *,
        alarm: float = math.inf,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._model, self._cfg = model, cfg
        # Fusing a few numbers is faster on the CPU, and verdicts are wanted there.
        self._calibration = scores.to("cpu")
        self._benign = {d.name: self._calibration.benign(d.name).numpy() for d in parts}
        # Elements of a view are plain floats, at a fraction of the memory of a list.
        self._plain = {name: each.data for name, each in self._benign.items()}
        self._parts = tuple(parts)
        self._levels = evidence_levels(parts)
        self._input = [d.name for d in parts if d.needs is Need.INPUT]
        self._alarm = alarm
        self._now = now
        self._key = None
        if cfg.secrecy is not None:
            self._key = read_key(f"models.{model}.secrecy", cfg.secrecy.key_file)
        self._writing = threading.Lock()
        self._epoch = self._current()
        self._rules: dict[frozenset[str], Rule] = {}
        self._wider: dict[float, float] = {}
        self._anomaly: Rule | None = None
        self._draw(self._epoch, self._levels.values())

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """Evidence level -> its threshold, as drawn at present."""
        rules = self._rules
        return {level: rules[frozenset(names)].threshold for level, names in self._levels.items()}

    def wider(self, threshold: float) -> float:
        """What stands in for a rule's threshold while the traffic drifts; see `Drift.widen_to`.

        The same where `on_alarm` is not widen, or for no rule's threshold.
        """
        return self._wider.get(threshold, threshold)

    @property
    def whole(self) -> Rule:
        """The rule that takes the scores of all detectors."""
        return self._rules[frozenset(d.name for d in self._parts)]

    def sweep(self, fprs: Sequence[float]) -> list[Rule]:
        """What `whole` would be at each of these false-positive rates; not for the device thread.

        Raises:
            ConfigError: the calibration does not support one of them.
        """
        levels, cascades = self._levels_of({d.name for d in self._parts})
        return self._fitted(levels, cascades, self._secrecy(self._epoch), fprs)

    def rule(self, names: Iterable[str]) -> Rule:
        """The rule for the detectors that are there.

        Raises:
            NoRule: there is none; those for the evidence levels always are.
        """
        chosen = frozenset(names)
        try:
            return self._rules[chosen]
        except KeyError:
            raise NoRule(f"no rule for {sorted(chosen)}") from None

    def prepare(self, names: Collection[str]) -> bool:
        """Make the rule for another set of detectors, for `rule` and `judge` to find.

        It takes tenths of a second, see `rotate`: not for the device thread.

        Returns:
            Whether it is there now; there is none for no detectors at all.
        """
        chosen = frozenset(names)
        with self._writing:
            if not chosen or chosen in self._rules:
                return bool(chosen)
            made = self._made(chosen, self._secrecy(self._epoch))
            kept = list(self._rules.items())
            fixed = len({frozenset(names) for names in self._levels.values()})
            if len(kept) >= fixed + MOST_PREPARED:
                del kept[fixed]  # the oldest that is not of an evidence level
            self._rules = {**dict(kept), chosen: made}
        return True

    def sets_without(self, left_out: Collection[str]) -> list[frozenset[str]]:
        """The detectors of each evidence level but these; levels with none are left out."""
        rests = (frozenset(names) - set(left_out) for names in self._levels.values())
        return [rest for rest in rests if rest]

    def has(self, names: Collection[str]) -> bool:
        """Whether there is a rule for these detectors."""
        return frozenset(names) in self._rules

    def rotate(self) -> bool:
        """Draw new rules if another epoch has begun since the last; tells whether that was so.

        It takes tenths of a second (0.3 s for 4 detectors and 11 groups of 2,000), far more than a
        request's budget: not for the device thread, where all that came at that time would go
        unjudged, and everybody can tell when an epoch ends.
        """
        epoch = self._current()
        with self._writing:
            if epoch == self._epoch:
                return False
            self._draw(epoch, list(self._rules))
            self._epoch = epoch
        return True

    def judge(self, scores: Mapping[str, Tensor]) -> list[SampleVerdict]:
        """Verdicts on samples, from the scores of all detectors that are there, on the CPU.

        Raises:
            NoRule: there is no rule for this set of detectors.
        """
        rule = self.rule(scores)
        stand = Stand.start(rule, len(next(iter(scores.values())))).found(scores)
        while stand.rows:
            stand, _ = stand.settled()
        return self.verdicts(stand)

    def anomaly(self, scores: Mapping[str, Tensor]) -> Tensor | None:
        """How suspicious inputs look by themselves, (B,) -log of a benign share.

        Args:
            scores: of all detectors that look at the input only, on the CPU; without any, or one
                of them, there is nothing to say.
        """
        if self._anomaly is None or not all(name in scores for name in self._input):
            return None
        return self._anomaly.score(scores)

    def verdicts(self, stand: Stand) -> list[SampleVerdict]:
        """What becomes of samples of which none is in doubt any more."""
        threshold, levels = stand.rule.threshold.value, stand.rule.levels
        p_values = self._p_values(stand.scores)
        scores = {name: each.tolist() for name, each in stand.scores.items()}
        history = stand.scores.get(QueryHistory.name)
        alarms = (
            [False] * len(stand.fused)
            if history is None
            else [score > self._alarm for score in history.tolist()]
        )
        found = []
        for i, (fused, level) in enumerate(zip(stand.fused.tolist(), stand.reached, strict=True)):
            looked = {name: p_values[name][i] for name in levels[level]}
            if history is not None and QueryHistory.name not in looked:
                looked[QueryHistory.name] = p_values[QueryHistory.name][i]
            own = {name: scores[name][i] for name in looked}
            found.append(_verdict(fused, threshold, looked, own, alarm=alarms[i]))
        return found

    def verdict(self, rule: Rule, scores: Mapping[str, Bounds]) -> SampleVerdict | None:
        """As `verdicts`, on one sample without a history, in plain floats.

        Args:
            rule: by which it is judged, at its last level.
            scores: bounds on those of all its detectors.

        Returns:
            None where the bounds do not tell the verdict, or a score is not finite.
        """
        bounds = rule.bounds(scores)
        if bounds is None or QueryHistory.name in scores:
            return None
        low, high = bounds
        threshold = rule.threshold.value
        same = policy.judge(low, threshold) is policy.judge(high, threshold)
        if not (same and high - low <= _CLOSE * (1 + high)):
            return None
        p_values = {}
        for name, (least, _) in scores.items():
            benign = self._plain[name]
            # Benign scores that tie with this one count as higher, by whichever digits they tie.
            p_values[name] = (len(benign) + 1 - bisect_left(benign, least)) / (len(benign) + 1)
        middle = {name: (least + most) / 2 for name, (least, most) in scores.items()}
        return _verdict((low + high) / 2, threshold, p_values, middle, alarm=False)

    def _p_values(self, scores: Mapping[str, Tensor]) -> dict[str, list[float]]:
        """As `Calibration.p_values`, for scores on the CPU: all but the search at once."""
        if not scores:
            return {}
        found = np.array([each.numpy() for each in scores.values()])
        benign = [self._benign[name] for name in scores]
        total = len(benign[0]) + 1
        below = [each.searchsorted(own) for each, own in zip(benign, found, strict=True)]
        p = np.where(np.isfinite(found), (total - np.array(below)) / total, np.nan)
        return dict(zip(scores, p.tolist(), strict=True))

    # -- how rules are made ----------------------------------------------------------------------

    def _current(self) -> int:
        secrecy = self._cfg.secrecy
        return 0 if secrecy is None else int(self._now() // (3600 * secrecy.rotate_hours))

    def _secrecy(self, epoch: int) -> Secrecy | None:
        if self._key is None or self._cfg.secrecy is None:
            return None
        return Secrecy(self._key, epoch, self._cfg.secrecy.keep)

    def _draw(self, epoch: int, sets: Iterable[Iterable[str]]) -> None:
        secrecy = self._secrecy(epoch)
        rules = {frozenset(names): self._made(frozenset(names), secrecy) for names in sets}
        if self._input:
            flat = rules.get(frozenset(self._input))
            if flat is None or len(flat.levels) > 1:
                # The history was calibrated on the input's score as all detectors have it.
                (flat,) = self._fitted([self._input], (), secrecy, [self._cfg.fpr])
            self._anomaly = flat
        self._rules = rules

    def _made(self, names: frozenset[str], secrecy: Secrecy | None) -> Rule:
        levels, cascades = self._levels_of(names)
        fprs = [self._cfg.fpr]
        if self._cfg.drift.on_alarm == "widen":  # here, so that a request never waits for it
            wanted = self._cfg.fpr / self._cfg.drift.widen_to
            fprs.append(min(self._cfg.fpr, max(wanted, self._calibration.least_fpr)))
        rule, *wide = self._fitted(levels, cascades, secrecy, fprs)
        for each in wide:
            kept = list(self._wider.items())[-MOST_WIDER:]
            self._wider = {**dict(kept), rule.threshold.value: each.threshold.value}
        return rule

    def _levels_of(self, names: Collection[str]) -> tuple[list[tuple[str, ...]], list[Cascade]]:
        stops = self._cfg.cascade
        return levels_of(
            [d for d in self._parts if d.name in names],
            None if stops is None else Cascade(stops.clean, stops.suspicious),
        )

    def _fitted(
        self,
        levels: Sequence[Sequence[str]],
        cascades: Sequence[Cascade],
        secrecy: Secrecy | None,
        fprs: Sequence[float],
    ) -> list[Rule]:
        try:
            return self._calibration.rules(levels, fprs, cascade=cascades or None, secrecy=secrecy)
        except CalibrationError as error:
            raise ConfigError(f"models.{self._model}: {error}") from error


def evidence_levels(parts: Sequence[Detector]) -> dict[str, tuple[str, ...]]:
    """The detectors usable at each level of evidence; levels that add none are left out."""
    levels: dict[str, tuple[str, ...]] = {}
    for position, need in enumerate(LEVELS):
        names = tuple(d.name for d in parts if LEVELS.index(d.needs) <= position)
        if names and names not in levels.values():
            levels[need.value] = names
    return levels


def _verdict(
    score: float,
    threshold: float,
    p_values: dict[str, float],
    scores: dict[str, float],
    *,
    alarm: bool,
) -> SampleVerdict:
    verdict = policy.judge(score, threshold)
    # NaN compares with nothing.
    reason = min(
        p_values, key=lambda name: p_values[name] if p_values[name] == p_values[name] else 1
    )
    if verdict is Verdict.FAILED:
        reason = "non_finite"
    return SampleVerdict(verdict, score, threshold, p_values, reason, alarm, scores)
