"""What is counted per model, and that no label value can be made up by a client."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry

from proxy.errors import UpstreamUnavailable
from proxy.flow import Action, Verdict
from proxy.model_metrics import (
    ACTIONS,
    FAILURE_REASONS,
    GRPC_CODES,
    STAGES,
    STALE_REASONS,
    UNSCORED_REASONS,
    Families,
    ModelMetrics,
)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def model(registry: CollectorRegistry) -> ModelMetrics:
    return ModelMetrics(Families(registry), "cnn", ["squeeze"])


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"breakwater_{name}", {"model": "cnn", **labels})


def test_requests_by_action_and_outcome(model: ModelMetrics, registry: CollectorRegistry) -> None:
    model.request(Action.BLOCK, "blocked")
    model.request("none", UpstreamUnavailable.kind)
    model.request("none", "made up")
    model.request("made up", "ok")
    total = "requests_total"
    assert value(registry, total, action="block", outcome="blocked") == 1
    assert value(registry, total, action="none", outcome="upstream_unavailable") == 1
    assert value(registry, total, action="none", outcome="other") == 1
    assert value(registry, total, action="other", outcome="other") == 1


@pytest.mark.parametrize("stage", STAGES)
def test_stages_resolve_a_tenth_of_a_millisecond(
    model: ModelMetrics, registry: CollectorRegistry, stage: str
) -> None:
    model.stage(stage, 0.00009)
    model.stage(stage, 9.0)
    model.stage(stage, 11.0)
    assert value(registry, "stage_seconds_bucket", stage=stage, le="0.0001") == 1
    assert value(registry, "stage_seconds_bucket", stage=stage, le="10.0") == 2
    assert value(registry, "stage_seconds_count", stage=stage) == 3


def test_detector_time_and_p_values(model: ModelMetrics, registry: CollectorRegistry) -> None:
    model.detector("squeeze", 0.0007)
    model.p_value("squeeze", 0.0004)
    model.p_value("squeeze", 1.0)
    model.p_value("squeeze", math.nan)
    assert value(registry, "detector_p_value_sum", detector="squeeze") == pytest.approx(1.0004)
    assert value(registry, "detector_seconds_sum", detector="squeeze") == pytest.approx(0.0007)
    assert value(registry, "detector_p_value_bucket", detector="squeeze", le="0.001") == 1
    assert value(registry, "detector_p_value_bucket", detector="squeeze", le="1.0") == 2


def test_names_that_are_not_configured_make_no_series(
    model: ModelMetrics, registry: CollectorRegistry
) -> None:
    before = {s.name for m in registry.collect() for s in m.samples}
    lines = sum(len(m.samples) for m in registry.collect())
    model.stage("invented", 1)
    model.detector("invented", 1)
    model.p_value("invented", 1)
    model.sample("invented")
    model.detector_failure("invented")
    model.fail_open("invented")
    model.unscored("invented")
    model.upstream_error("invented")
    assert {s.name for m in registry.collect() for s in m.samples} == before
    assert sum(len(m.samples) for m in registry.collect()) == lines
    assert value(registry, "unscored_total", reason="other") == 1
    assert value(registry, "upstream_errors_total", code="other") == 1


@pytest.mark.parametrize("reason", FAILURE_REASONS)
def test_failures_and_fail_open_by_reason(
    model: ModelMetrics, registry: CollectorRegistry, reason: str
) -> None:
    model.detector_failure(reason)
    model.fail_open(reason)
    assert value(registry, "detector_failures_total", reason=reason) == 1
    assert value(registry, "fail_open_total", reason=reason) == 1


def test_plain_counters(model: ModelMetrics, registry: CollectorRegistry) -> None:
    model.bytes(12_000, 340)
    model.observe_skipped()
    model.shared_memory_passthrough()
    model.upstream_error("UNAVAILABLE")
    model.unscored(UNSCORED_REASONS[0])
    model.sample(Verdict.SUSPICIOUS)
    assert value(registry, "received_bytes_total") == 12_000
    assert value(registry, "sent_bytes_total") == 340
    assert value(registry, "observe_skipped_total") == 1
    assert value(registry, "shared_memory_passthrough_total") == 1
    assert value(registry, "upstream_errors_total", code="UNAVAILABLE") == 1
    assert value(registry, "unscored_total", reason=UNSCORED_REASONS[0]) == 1
    assert value(registry, "samples_total", verdict="suspicious") == 1


def test_threshold_with_its_calibrated_rate(
    model: ModelMetrics, registry: CollectorRegistry
) -> None:
    model.threshold("output", 3.25, 0.013)
    assert value(registry, "score_threshold", evidence="output") == 3.25
    assert value(registry, "calibrated_false_positive_ratio", evidence="output") == 0.013


def test_what_the_proxy_added_is_never_negative(
    model: ModelMetrics, registry: CollectorRegistry
) -> None:
    model.added(0.004)
    model.added(-0.001)  # clocks are read one after the other
    assert value(registry, "added_seconds_count") == 2
    assert value(registry, "added_seconds_sum") == pytest.approx(0.004)
    assert value(registry, "added_seconds_bucket", le="0.05") == 2


def test_a_calibration_is_stale_for_reasons_of_a_closed_set(
    model: ModelMetrics, registry: CollectorRegistry
) -> None:
    assert value(registry, "calibration_stale", reason="drift") is None  # nothing is calibrated
    model.calibration(1_700_000_000.0)
    assert value(registry, "calibration_timestamp_seconds") == 1_700_000_000.0
    assert [value(registry, "calibration_stale", reason=each) for each in STALE_REASONS] == [0] * 3
    model.calibration_stale("drift", True)
    model.calibration_stale("invented", True)
    assert value(registry, "calibration_stale", reason="drift") == 1
    assert value(registry, "calibration_stale", reason="invented") is None
    model.calibration(1_700_000_001.0)  # a reload does not take back what others have said
    assert value(registry, "calibration_stale", reason="drift") == 1


def test_a_retired_model_calls_for_no_action(
    model: ModelMetrics, registry: CollectorRegistry
) -> None:
    model.calibration(1_700_000_000.0)
    model.calibration_stale("age", True)
    model.circuit("squeeze", is_open=True)
    model.retire()
    made = value(registry, "calibration_timestamp_seconds")
    assert made is not None
    assert math.isnan(made)
    assert value(registry, "calibration_stale", reason="age") == 0
    assert value(registry, "detector_circuit_open", detector="squeeze") == 0


def test_series_exist_from_the_start_so_that_the_first_increment_is_seen(
    registry: CollectorRegistry, model: ModelMetrics
) -> None:
    del model  # building it is enough
    for action in ACTIONS:
        assert value(registry, "requests_total", action=action, outcome="ok") == 0
    for code in GRPC_CODES:
        assert value(registry, "upstream_errors_total", code=code) == 0
