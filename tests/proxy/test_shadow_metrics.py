"""What is counted of a shadow policy, and what is not."""

from __future__ import annotations

import inspect

from prometheus_client import CollectorRegistry

from proxy.metrics import Metrics
from proxy.model_metrics import ModelMetrics
from proxy.shadow_metrics import ShadowMetrics


def series(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """What is there of a shadow: name and label values -> value."""
    return {
        (sample.name.removeprefix("breakwater_shadow_"), *sample.labels.values()): sample.value
        for family in registry.collect()
        if family.name.startswith("breakwater_shadow")
        for sample in family.samples
    }


def test_a_comparison_is_counted_over_closed_sets() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert not series(registry)  # no model has a shadow
    metrics.configure({"m": ()})
    shadow = metrics.shadow("m")
    shadow.compared("pass", "suspicious")
    shadow.compared("pass", "a verdict of the caller's choice")
    shadow.disagreed("none", "flag")
    shadow.disagreed("\n", "flag")
    shadow.skipped("full")
    shadow.skipped("weather")
    shadow.failed()
    assert series(registry) == {
        ("samples_total", "m", "pass", "suspicious"): 1,
        ("samples_total", "m", "pass", "other"): 1,
        ("disagreements_total", "m", "none", "flag"): 1,
        ("disagreements_total", "m", "other", "flag"): 1,
        ("skipped_total", "m", "full"): 1,
        ("skipped_total", "m", "no_answer"): 0,
        ("skipped_total", "m", "other"): 1,
        ("failures_total", "m"): 1,
    }


def test_nothing_passes_for_the_traffic() -> None:
    registry = CollectorRegistry()
    shadow = Metrics(registry).shadow("m")
    told = {str: "none", int: 1, float: 0.5, bool: True}
    for name, method in inspect.getmembers(ModelMetrics, inspect.isfunction):
        if name.startswith("_"):
            continue
        assert name in vars(ShadowMetrics), f"a shadow would count {name}"
        parameters = list(inspect.signature(method, eval_str=True).parameters.values())[1:]
        plain = [told[p.annotation] for p in parameters if p.kind is not p.KEYWORD_ONLY]
        named = {p.name: told[p.annotation] for p in parameters if p.kind is p.KEYWORD_ONLY}
        getattr(shadow, name)(*plain, **named)
    found = [
        sample.name
        for family in registry.collect()
        for sample in family.samples
        if sample.labels.get("model") == "m"
    ]
    assert {name.startswith("breakwater_shadow_") for name in found} == {True}
