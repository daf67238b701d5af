"""One model's rules: scores to verdicts, for whatever detectors could look at a sample."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from detectors import calibration
from detectors.base import Detector, Need
from detectors.query_history import QueryHistory
from detectors.rule import CalibrationError, Cascade, Rule, Threshold
from detectors.secrecy import Secrecy
from proxy import config, policy
from proxy.errors import ConfigError
from proxy.flow import SampleVerdict, Verdict
from proxy.keyfile import read_key

LEVELS = tuple(Need)
"""Kinds of evidence, in order of cost."""


class Rules:
    """The rule for each level of evidence, drawn anew in every epoch where there is a secret.

    The device thread judges while another one calls `rotate`: the rules in force are replaced in
    one assignment, and every method reads them once.

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
        self._calibration = scores
        self._levels = evidence_levels(parts)
        self._alarm = alarm
        self._now = now
        self._key = None
        if cfg.secrecy is not None:
            self._key = read_key(f"models.{model}.secrecy", cfg.secrecy.key_file)
        self._epoch = self._current()
        self._rules = self._drawn(self._epoch)

    @property
    def thresholds(self) -> dict[str, Threshold]:
        """Evidence level -> its threshold, as drawn at present."""
        rules = self._rules
        return {level: rules[frozenset(names)].threshold for level, names in self._levels.items()}

    def rotate(self) -> bool:
        """Draw new rules if another epoch has begun since the last; tells whether that was so.

        It takes tenths of a second (0.3 s for 4 detectors and 11 groups of 2,000), far more than a
        request's budget: not for the device thread, where all that came at that time would go
        unjudged, and everybody can tell when an epoch ends.
        """
        epoch = self._current()
        if epoch == self._epoch:
            return False
        self._rules = self._drawn(epoch)
        self._epoch = epoch
        return True

    def judge(self, scores: Mapping[str, Tensor]) -> list[SampleVerdict]:
        """Verdicts on samples, from the scores of all detectors of one evidence level."""
        rule = self._rules[frozenset(scores)]
        return self._verdicts(rule, rule.score(scores), scores)

    def settle(
        self, scores: Mapping[str, Tensor], sizes: Sequence[int]
    ) -> list[tuple[SampleVerdict, ...] | None]:
        """Verdicts from the input alone where that is enough for every sample of a request.

        Args:
            scores: of the detectors that look at the input only, for a batch of requests.
            sizes: how many samples each request has.

        Returns:
            One for each request; None where dearer evidence is to be gathered.
        """
        if self._cfg.cascade is None or not scores:
            return [None] * len(sizes)
        rule = self._rules[frozenset(self._levels[list(self._levels)[-1]])]
        fused = rule.settle(scores)
        if fused is None:
            return [None] * len(sizes)
        verdicts = iter(self._verdicts(rule, fused, scores))
        requests = [tuple(islice(verdicts, size)) for size in sizes]
        return [
            None if any(s.verdict is Verdict.FAILED for s in request) else request
            for request in requests
        ]

    def anomaly(self, scores: Mapping[str, Tensor]) -> Tensor | None:
        """How suspicious inputs look by themselves, (B,) -log of a benign share.

        Args:
            scores: of the detectors that look at the input only; none gives None.
        """
        return self._rules[frozenset(scores)].score(scores) if scores else None

    def _verdicts(
        self, rule: Rule, fused: Tensor, scores: Mapping[str, Tensor]
    ) -> list[SampleVerdict]:
        p_values = self._calibration.p_values(scores)
        names = list(p_values)
        history = scores.get(QueryHistory.name, torch.zeros_like(fused))
        table = torch.stack([fused, history, *p_values.values()]).cpu().tolist()
        return [
            _verdict(
                column[0],
                rule.threshold.value,
                dict(zip(names, column[2:], strict=True)),
                alarm=column[1] > self._alarm,
            )
            for column in zip(*table, strict=True)
        ]

    def _current(self) -> int:
        secrecy = self._cfg.secrecy
        return 0 if secrecy is None else int(self._now() // (3600 * secrecy.rotate_hours))

    def _drawn(self, epoch: int) -> dict[frozenset[str], Rule]:
        secrecy = None
        if self._key is not None and self._cfg.secrecy is not None:
            secrecy = Secrecy(self._key, epoch, self._cfg.secrecy.keep)
        stops = self._cfg.cascade
        cascade = None if stops is None else Cascade(stops.clean, stops.suspicious)
        first = list(self._levels.values())[:1] if Need.INPUT in self._levels else []
        rules = {}
        for names in self._levels.values():
            levels = [*first, names] if cascade is not None and [names] != first else [names]
            try:
                rules[frozenset(names)] = self._calibration.rule(
                    levels, self._cfg.fpr, cascade=cascade, secrecy=secrecy
                )
            except CalibrationError as error:
                raise ConfigError(f"models.{self._model}: {error}") from error
        return rules


def evidence_levels(parts: Sequence[Detector]) -> dict[str, tuple[str, ...]]:
    """The detectors usable at each level of evidence; levels that add none are left out."""
    levels: dict[str, tuple[str, ...]] = {}
    for position, need in enumerate(LEVELS):
        names = tuple(d.name for d in parts if LEVELS.index(d.needs) <= position)
        if names and names not in levels.values():
            levels[need.value] = names
    return levels


def _verdict(
    score: float, threshold: float, p_values: dict[str, float], *, alarm: bool
) -> SampleVerdict:
    verdict = policy.judge(score, threshold)
    # NaN, of a detector that a cascade did without, compares with nothing.
    reason = min(
        p_values, key=lambda name: p_values[name] if p_values[name] == p_values[name] else 1
    )
    if verdict is Verdict.FAILED:
        reason = "non_finite"
    return SampleVerdict(verdict, score, threshold, p_values, reason, alarm)
