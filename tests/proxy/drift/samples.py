"""A calibration of numbers alone, and requests that look like it or do not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from prometheus_client import CollectorRegistry

from detectors.drift_reference import Reference, Scale, Signal, nominal, ordered
from proxy.drift.gauges import DriftMetrics
from proxy.drift.population import Population, Subject
from proxy.drift.settings import Drift
from proxy.flow import Flow, SampleVerdict, Verdict
from tests.proxy.drift.monitored import Clock

STATISTICS = ("brightness", "contrast")
SUBJECT = Subject("model", "digest", "1", "0.01")


def reference() -> Reference:
    """One score, one statistic of the input, three classes, and verdicts at a rate of 1 %."""
    rng = np.random.default_rng(0)
    classes = np.arange(3000.0) % 3
    return Reference(
        {
            "score/one": ordered([rng.standard_normal(3000)]),
            "input/contrast": ordered([rng.standard_normal(3000)]),
            "classes": nominal([classes]),
            "verdict": Signal(Scale.RATE, np.zeros(1), np.array([[990.0, 10.0]])),
        }
    )


def flow(
    rng: np.random.Generator,
    principal: str,
    count: int = 4,
    *,
    shift: float = 0.0,
    verdict: Verdict = Verdict.PASS,
) -> Flow:
    """A scored request; with a shift its scores are higher by that many deviations."""
    scores = (rng.standard_normal(count) + shift).tolist()
    found = Flow("r", 0.0, None, principal)
    found.samples = tuple(
        SampleVerdict(verdict, each, 2.0, {"one": 0.5}, scores={"one": each}) for each in scores
    )
    found.statistics = rng.standard_normal((count, len(STATISTICS))).astype(np.float32)
    found.classes = rng.integers(0, 3, count)
    return found


def population(
    clock: Clock, settings: Mapping[str, object], registry: CollectorRegistry | None = None
) -> Population:
    """The traffic of a model of that calibration."""
    return Population(
        SUBJECT,
        Drift.model_validate(settings),
        reference(),
        statistics=STATISTICS,
        metrics=DriftMetrics(registry or CollectorRegistry()),
        key=b"k" * 16,
        now=clock,
    )
