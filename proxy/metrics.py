"""Every metric of a process, in one class with the registry passed in.

Only this module and `proxy.model_metrics` (what is counted per model) import prometheus_client.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from proxy import __version__
from proxy.capture.metrics import CaptureMetrics
from proxy.config import RpcGroup
from proxy.drift.gauges import DriftMetrics
from proxy.model_metrics import OTHER, SECONDS_BUCKETS, Families, ModelMetrics
from proxy.shadow_metrics import ShadowMetrics

__all__ = ["Metrics", "ModelMetrics", "SupervisorMetrics", "build_labels"]

RPC_GROUPS = (*get_args(RpcGroup), "unknown")
DEGRADATIONS = ("timeout", "unreachable", "error", "full", "out_of_memory", "busy")
"""Why the shared history could not be asked or told (`proxy.history.shared.REASONS`); busy: other
workers had the turn at the common one for too long."""
HANDOFFS = ("used", "inline_small", "inline_unsuitable", "full", "unregistered", "lost")
"""What becomes of a request's tensors (`proxy.handoff.OUTCOMES`)."""
LIMITED = ("rate", "in_flight", "message_bytes", "model", "rpc")
FALLBACKS = ("smaller_batch", "cpu")
"""What is done when the device has no memory left (`proxy.memory_ladder`)."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_Mode = Literal["livesum", "livemax", "livemin", "max"]


class Metrics:
    """All metrics of one process. Build it once, after PROMETHEUS_MULTIPROC_DIR is set or not.

    Args:
        registry: where the metrics are registered; also what a single process exposes. Default:
            one of its own.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # halves the counters' lines
        self._registry = registry or CollectorRegistry()
        self._families = Families(self._registry)
        self._other = ModelMetrics(self._families, OTHER, ())
        self._models: dict[str, ModelMetrics] = {}
        self._build_globals()

    def _build_globals(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"breakwater_{name}", text, labels, registry=self._registry)

        def gauge(name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
            return Gauge(
                f"breakwater_{name}", text, labels, registry=self._registry, multiprocess_mode=mode
            )

        self.in_flight = gauge("in_flight", "Unary requests and open streams.", "livesum")
        queue_depth = gauge("queue_depth", "Entries waiting for the device.", "livesum")
        self._queue_depth = queue_depth.set
        batch = Histogram(
            "breakwater_batch_size",
            "Samples scored in one pass.",
            registry=self._registry,
            buckets=BATCH_BUCKETS,
        )
        self._batch = batch.observe
        refused = counter("rpc_refused", "RPCs refused by policy.", "group")
        self._refused = {group: refused.labels(group).inc for group in (*RPC_GROUPS, OTHER)}
        limited = counter("limited", "Calls refused by a principal's limits.", "reason")
        self._limited = {reason: limited.labels(reason).inc for reason in LIMITED}
        gave_way = counter(
            "gave_way",
            "Ended so that others fit: calls whose message was still coming (sending), "
            "connections that did not take their answers (untaken).",
            "reason",
        )
        self.call_gave_way = gave_way.labels("sending").inc
        self.connection_gave_way = gave_way.labels("untaken").inc
        fallbacks = counter(
            "device_fallbacks",
            "Passes that did not fit into the device's memory, by what was done instead.",
            "kind",
        )
        self._fallbacks = {kind: fallbacks.labels(kind).inc for kind in FALLBACKS}
        self._generation = gauge("config_generation", "Configurations applied.", "livemax")
        self._reload_ok = gauge(
            "config_last_reload_successful", "0 while the file on disk is not in force.", "livemin"
        )
        self._reload_failures = counter("config_reload_failures", "Configurations rejected.")
        self._certificate_expiry = gauge(
            "certificate_expiry_timestamp_seconds",
            "When a listener's certificate in use expires, Unix time.",
            *("livemin", "which"),
        )
        self._certificate_failures = counter(
            "certificate_reload_failures", "Changed certificates that could not be used."
        )
        self._build_history(counter, gauge)
        handed = counter(
            "upstream_shared_memory", "Requests by the way their tensors took to Triton.", "outcome"
        )
        self._handed = {outcome: handed.labels(outcome).inc for outcome in HANDOFFS}
        self._handed_before: dict[str, int] = {}
        # 0 until the model server has been asked, and where any worker cannot use it.
        self._upstream_ready = gauge(
            "upstream_ready", "Whether the model server says that it is ready.", "livemin"
        ).set
        self._leased = gauge(
            "upstream_shared_memory_leased_bytes", "Shared memory in use or held back.", "livesum"
        ).set
        self._build_records(counter, gauge)
        self.capture = CaptureMetrics(self._registry)
        """What is published of the captures."""
        self.drift = DriftMetrics(self._registry)
        """What is published of the traffic as a whole."""
        self.spans_dropped = counter(
            "spans_dropped", "Spans of traces that the collector will never have."
        ).inc
        self._audit_dropped = counter("audit_dropped", "Audit lines lost: the writer fell behind.")
        labels = build_labels()
        gauge("build_info", "Versions, as labels; always 1.", "max", *labels).labels(**labels).set(
            1
        )

    def _build_history(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self._lookup = Histogram(
            "breakwater_history_lookup_seconds",
            "Time to look up and remember one request's queries in this process.",
            registry=self._registry,
            buckets=SECONDS_BUCKETS,
        ).observe
        degraded = counter(
            "history_degraded", "Times part of the history was missing, by the reason.", "reason"
        )
        self._degraded = {reason: degraded.labels(reason).inc for reason in (*DEGRADATIONS, OTHER)}
        self._store: Gauge | None = None
        self._remembered = gauge("history_queries", "Queries remembered.", "livemax").set
        self._quarantined = gauge("quarantined_principals", "In quarantine now.", "livemax").set

    def _build_records(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        self._kept = gauge("records_kept", "Samples whose scores are kept.", "livesum", "model")
        self._watching = gauge("watchers", "Who follow the records as they come.", "livesum").set
        self._watch_dropped = counter(
            "watch_dropped", "Records that slow watchers have missed."
        ).inc

    def configure(self, models: Mapping[str, Sequence[str]]) -> None:
        """Set the closed label sets: model name -> detector names. Called again on reload.

        The thresholds of models that are gone, or not scored any more, become NaN: a multiprocess
        file cannot drop a series.
        """
        for name, before in self._models.items():
            kept = models.get(name)
            if not kept:
                before.retire()
                continue
            for detector in before.detectors - set(kept):
                before.retire_detector(detector)
        self._models = {
            name: ModelMetrics(self._families, name, detectors)
            for name, detectors in models.items()
        }

    def model(self, name: str) -> ModelMetrics:
        """Return the model's metrics; those of "other" for a name that is not configured."""
        return self._models.get(name, self._other)

    def shadow(self, name: str) -> ShadowMetrics:
        """Return what is counted of a configured model's shadow policy."""
        return ShadowMetrics(self._families, name)

    def batch(self, size: int) -> None:
        """Record the number of samples in one pass over the device."""
        self._batch(size)

    def queue_depth(self, n: int) -> None:
        """Set the number of entries waiting for the device."""
        self._queue_depth(n)

    def upstream_shared_memory(self, totals: Mapping[str, int], *, leased_bytes: int) -> None:
        """Record the requests by outcome since the start, and the memory in use now."""
        for outcome, total in totals.items():
            self._handed[outcome](total - self._handed_before.get(outcome, 0))
        self._handed_before = dict(totals)
        self._leased(leased_bytes)

    def upstream_ready(self, is_ready: bool) -> None:
        """Set whether the model server says that it is ready."""
        self._upstream_ready(is_ready)

    def device_fallback(self, kind: str) -> None:
        """Count a pass done in smaller batches or on the CPU, for want of memory on the device."""
        self._fallbacks[kind]()

    def rpc_refused(self, group: str) -> None:
        """Count an RPC refused by policy, by its group."""
        (self._refused.get(group) or self._refused[OTHER])()

    def limited(self, reason: str) -> None:
        """Count a call refused by its principal's limits; `reason` is one of `LIMITED`."""
        self._limited[reason]()

    def history_lookup(self, seconds: float) -> None:
        """Record the time one request's queries took to look up and remember."""
        self._lookup(seconds)

    def history_degraded(self, reason: str) -> None:
        """Count that the shared history could not be asked or told."""
        (self._degraded.get(reason) or self._degraded[OTHER])()

    def history_size(self, *, queries: int, quarantined: int) -> None:
        """Set the number of remembered queries, and of principals in quarantine."""
        self._remembered(queries)
        self._quarantined(quarantined)

    def history_store(self, is_up: bool) -> None:
        """Set whether the shared history answers; never called where none is configured."""
        if self._store is None:
            self._store = Gauge(
                "breakwater_history_store_up",
                "Whether the shared history answers (1); 0 where any worker is without it.",
                registry=self._registry,
                multiprocess_mode="livemin",
            )
        self._store.set(is_up)

    def records(self, kept: Mapping[str, int], watching: int) -> None:
        """Set how many scores are kept of each model, and how many watch."""
        for model in self._models:
            self._kept.labels(model).set(kept.get(model, 0))
        self._watching(watching)

    def watch_dropped(self, n: int) -> None:
        """Count records that a slow watcher has missed."""
        self._watch_dropped(n)

    def config_loaded(self, generation: int) -> None:
        """Publish that the configuration of this generation (1 at start) is in force."""
        self._generation.set(generation)
        self._reload_ok.set(1)

    def config_reload_failed(self) -> None:
        """Count a configuration that was rejected; the old one stays in force."""
        self._reload_failures.inc()
        self._reload_ok.set(0)

    def certificate_expiry(self, which: str, ends_s: float) -> None:
        """Set when the certificate of a section of the configuration expires, Unix time."""
        self._certificate_expiry.labels(which).set(ends_s)

    def certificate_reload_failed(self) -> None:
        """Count changed certificates that were refused; the old ones stay in use."""
        self._certificate_failures.inc()

    def audit_dropped(self, n: int = 1) -> None:
        """Count audit lines lost because the writer could not keep up or write."""
        self._audit_dropped.inc(n)

    def exposition(self, multiprocess_dir: Path | None = None) -> tuple[str, bytes]:
        """Return the content type and body of one scrape.

        Args:
            multiprocess_dir: the workers' folder; the scrape then shows their sum. None: this
                process alone.
        """
        if multiprocess_dir is None:
            return CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return CONTENT_TYPE_LATEST, _aggregate(multiprocess_dir)


class SupervisorMetrics:
    """The metrics of the process that starts the workers, shown together with the workers' sum.

    Args:
        multiprocess_dir: the folder the workers write to.
    """

    def __init__(self, multiprocess_dir: Path) -> None:
        self._dir = multiprocess_dir
        self._registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._running = Gauge("breakwater_workers", "Worker processes.", registry=self._registry)
        self._restarts = Counter(
            "breakwater_worker_restarts", "Workers that died.", registry=self._registry
        )
        self._watch_dropped = Counter(
            "breakwater_supervisor_watch_dropped",
            "Records of several workers that slow watchers have missed.",
            registry=self._registry,
        )

    def started(self) -> None:
        """Count a worker that started."""
        self._running.inc()

    def ended(self, pid: int) -> None:
        """Count a worker out and forget its live gauges; its counters stay in the sum."""
        self._running.dec()
        mark_process_dead(pid, str(self._dir))  # type: ignore[no-untyped-call]

    def watch_dropped(self, n: int) -> None:
        """Count records that a slow watcher of all workers has missed."""
        self._watch_dropped.inc(n)

    def restarted(self) -> None:
        """Count a worker that died unasked and is being replaced."""
        self._restarts.inc()

    def exposition(self) -> tuple[str, bytes]:
        """Return the content type and body of one scrape: the workers' sum and our own."""
        return CONTENT_TYPE_LATEST, _aggregate(self._dir) + generate_latest(self._registry)


def build_labels() -> dict[str, str]:
    """Return the versions that matter in a bug report, without importing torch or grpc."""

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "none"

    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": of("torch"),
        "grpc": of("grpcio"),
    }


def _aggregate(folder: Path) -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)
