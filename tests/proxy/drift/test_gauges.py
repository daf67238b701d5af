"""What is published of drift, and that nobody's name can become a label."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry

from proxy.drift.gauges import DriftMetrics
from proxy.drift.state import Look, Seen, State


def test_a_look_is_published_and_blanked() -> None:
    registry = CollectorRegistry()
    metrics = DriftMetrics(registry)
    metrics.begin("m", ["score/one"])
    where = {"model": "m", "signal": "score/one", "window": "count"}

    def value(name: str, **labels: str) -> float:
        found = registry.get_sample_value(f"breakwater_{name}", labels)
        assert found is not None
        return found

    assert math.isnan(value("drift_p_value", **where))
    assert value("drift_withheld_actions_total", model="m", action="block") == 0
    look = Look(samples=40.0, seen=(Seen("score/one", 0.001, 0.3, 40.0),), raised=True)
    metrics.publish("m", State(looks={"count": look}), suspended=True)
    assert value("drift_p_value", **where) == 0.001
    assert value("drift_distance", **where) == 0.3
    assert value("drift_samples", model="m", window="count") == 40.0
    assert value("drift_alarm", model="m") == value("blocking_suspended", model="m") == 1
    metrics.begin("m", ["score/one"])
    assert math.isnan(value("drift_distance", **where))
    assert value("drift_alarm", model="m") == value("blocking_suspended", model="m") == 0


def test_only_actions_that_can_be_withheld_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = DriftMetrics(registry)
    metrics.withheld("m", "block")
    metrics.withheld("m", "something else")
    labels = [
        s.labels
        for f in registry.collect()
        for s in f.samples
        if s.name.endswith("withheld_actions_total")
    ]
    assert labels == [{"model": "m", "action": "block"}]
