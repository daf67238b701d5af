"""Global metrics, the multiprocess sum, and the closed label sets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from proxy.history.shared import REASONS
from proxy.metrics import DEGRADATIONS, Metrics, SupervisorMetrics, build_labels

WORKER = """
    import os, sys
    from prometheus_client import CollectorRegistry
    from proxy.metrics import Metrics
    metrics = Metrics(CollectorRegistry())
    metrics.configure({"cnn": ["squeeze"]})
    metrics.in_flight.inc(2)
    metrics.queue_depth(3)
    metrics.config_loaded(4)
    metrics.model("cnn").request("none", "ok")
    metrics.model("cnn").stage("total", 0.003)
    metrics.model("cnn").threshold("input", 1.5, 0.02)
    is_first = sys.argv[1] == "0"
    metrics.upstream_ready(is_first)
    metrics.history_store(is_first)
    metrics.model("cnn").calibration(7.0)
    metrics.model("cnn").calibration_stale("drift", is_first)
    metrics.model("cnn").added(0.003)
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_unknown_model_counts_as_other(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.configure({"cnn": []})
    metrics.model("attacker-chosen").request("none", "ok")
    labels = {"action": "none", "outcome": "ok"}
    name = "breakwater_requests_total"
    assert registry.get_sample_value(name, {"model": "other", **labels}) == 1
    assert registry.get_sample_value(name, {"model": "attacker-chosen", **labels}) is None


def test_reload_keeps_counts_and_blanks_thresholds_of_gone_models(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.configure({"a": ["squeeze"], "b": []})
    metrics.model("a").sample("pass")
    metrics.model("b").threshold("input", 0.5, 0.01)
    metrics.configure({"a": ["squeeze", "grid"]})
    metrics.model("a").sample("pass")
    metrics.model("a").p_value("grid", 0.2)
    value = registry.get_sample_value
    assert value("breakwater_samples_total", {"model": "a", "verdict": "pass"}) == 2
    assert value("breakwater_detector_p_value_count", {"model": "a", "detector": "grid"}) == 1
    gone = value("breakwater_score_threshold", {"model": "b", "evidence": "input"})
    assert gone is not None
    assert gone != gone  # NaN
    assert metrics.model("b") is metrics.model("never")


def test_a_detector_that_is_not_configured_any_more_is_not_left_out(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.configure({"a": ["squeeze", "grid"], "b": ["grid"]})
    for model, detector in (("a", "squeeze"), ("a", "grid"), ("b", "grid")):
        metrics.model(model).circuit(detector, is_open=True)
    metrics.model("b").calibration(5.0)
    metrics.model("b").calibration_stale("drift", True)
    metrics.configure({"a": ["grid"], "b": []})
    assert circuits(registry) == {("a", "squeeze"): 0, ("a", "grid"): 0, ("b", "grid"): 0}
    stale = {"model": "b", "reason": "drift"}
    assert registry.get_sample_value("breakwater_calibration_stale", stale) == 0


def circuits(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["model"], sample.labels["detector"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "breakwater_detector_circuit_open"
    }


def test_the_shared_history_has_a_series_only_where_there_is_one(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    assert registry.get_sample_value("breakwater_history_store_up") is None
    for is_up in (True, False, True):
        metrics.history_store(is_up)
        assert registry.get_sample_value("breakwater_history_store_up") == is_up


def test_global_metrics(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.batch(7)
    metrics.queue_depth(5)
    metrics.in_flight.inc()
    metrics.rpc_refused("trace")
    metrics.rpc_refused("invented")
    metrics.audit_dropped(3)
    value = registry.get_sample_value
    assert value("breakwater_batch_size_bucket", {"le": "8.0"}) == 1
    assert value("breakwater_batch_size_bucket", {"le": "4.0"}) == 0
    assert value("breakwater_queue_depth") == 5
    assert value("breakwater_in_flight") == 1
    assert value("breakwater_rpc_refused_total", {"group": "trace"}) == 1
    assert value("breakwater_rpc_refused_total", {"group": "other"}) == 1
    assert value("breakwater_audit_dropped_total") == 3
    assert value("breakwater_build_info", build_labels()) == 1


def test_config_metrics_tell_a_rejected_file(metrics: Metrics, registry: CollectorRegistry) -> None:
    value = registry.get_sample_value
    metrics.config_loaded(1)
    metrics.config_reload_failed()
    assert value("breakwater_config_generation") == 1
    assert value("breakwater_config_last_reload_successful") == 0
    assert value("breakwater_config_reload_failures_total") == 1
    metrics.config_loaded(2)
    assert value("breakwater_config_last_reload_successful") == 1


def test_every_name_has_the_prefix_and_no_created_series(metrics: Metrics) -> None:
    content_type, body = metrics.exposition()
    assert content_type.startswith("text/plain")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    assert all(line.startswith("breakwater_") for line in lines)
    assert not [line for line in lines if "_created" in line]


def test_torch_and_grpc_are_not_imported() -> None:
    code = "import proxy.metrics, sys; print({'torch', 'grpc'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "set()"


def test_one_scrape_sums_the_workers_and_forgets_the_gauges_of_the_dead(tmp_path: Path) -> None:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )
        for number in range(2)
    ]
    supervisor = SupervisorMetrics(tmp_path)
    pids = []
    for worker in workers:
        assert worker.stdout is not None
        pids.append(int(worker.stdout.readline()))
        supervisor.started()
    body = supervisor.exposition()[1].decode().splitlines()
    assert 'breakwater_requests_total{action="none",model="cnn",outcome="ok"} 2.0' in body
    assert 'breakwater_stage_seconds_count{model="cnn",stage="total"} 2.0' in body
    assert 'breakwater_score_threshold{evidence="input",model="cnn"} 1.5' in body
    assert "breakwater_in_flight 4.0" in body
    assert "breakwater_queue_depth 6.0" in body
    assert "breakwater_config_generation 4.0" in body
    assert "breakwater_workers 2.0" in body
    assert "breakwater_upstream_ready 0.0" in body
    assert "breakwater_history_store_up 0.0" in body
    assert 'breakwater_calibration_timestamp_seconds{model="cnn"} 7.0' in body
    assert 'breakwater_calibration_stale{model="cnn",reason="drift"} 1.0' in body
    assert 'breakwater_added_seconds_bucket{le="0.005",model="cnn"} 2.0' in body

    workers[0].communicate("")
    supervisor.ended(pids[0])
    supervisor.restarted()
    body = supervisor.exposition()[1].decode().splitlines()
    assert 'breakwater_requests_total{action="none",model="cnn",outcome="ok"} 2.0' in body
    assert "breakwater_in_flight 2.0" in body
    assert 'breakwater_calibration_stale{model="cnn",reason="drift"} 0.0' in body
    assert "breakwater_workers 1.0" in body
    assert "breakwater_worker_restarts_total 1.0" in body
    workers[1].communicate("")
    body = Metrics(CollectorRegistry()).exposition(tmp_path)[1].decode().splitlines()
    assert 'breakwater_requests_total{action="none",model="cnn",outcome="ok"} 2.0' in body


def test_every_way_the_shared_history_degrades_has_a_label() -> None:
    assert set(DEGRADATIONS) == {*REASONS, "busy"}
