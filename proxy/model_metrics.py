"""The metrics of one model, resolved once so that the request path pays no look-ups.

Label values come from closed sets only: configured model and detector names, and the sets below.
Anything else becomes "other", so that no client can grow the number of series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from proxy.errors import GRPC_CODES, ProxyError
from proxy.flow import Action, Verdict

OTHER = "other"
STAGES = ("read", "queue", "score", "history", "views", "purify", "upstream", "total")
ACTIONS = tuple(str(action) for action in Action)
VERDICTS = tuple(str(verdict) for verdict in Verdict)
FAILURE_REASONS = (
    *("error", "non_finite", "budget", "overloaded", "no_evidence", "not_ready"),
    "circuit_open",
)
SKIPPABLE = ("score", "views", "purify")
STALE_REASONS = ("drift", "model_version", "age")
"""Why a calibration should be made anew: the traffic is not what it was made on, Triton serves
another version of the model, or it is older than the policy allows."""
AGGREGATIONS = ("served", "hidden", "sequence", "stream", *FAILURE_REASONS)
"""Outcomes of wanting one answer from several purified copies; all but the first fall back."""
WASTED_REASONS = ("cancelled", "ran")
"""How a call whose answer was void ended: cancelled, or run to its end."""
UNSCORED_REASONS = (
    "unlisted_model",
    "no_detectors",
    "invalid_tensor",
    "shared_memory",
    "no_tensor",
)
# 1-2.5-5 steps: three buckets a decade resolve a p99 to about a factor of two.
SECONDS_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
P_VALUE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

_Inc = Callable[[], None]
_Observe = Callable[[float], None]


def _outcomes() -> tuple[str, ...]:
    """`ok`, `cancelled` by the client, and the kind of every error a request can end with."""
    kinds, todo = {ProxyError.kind}, [ProxyError]
    while todo:
        for child in todo.pop().__subclasses__():
            kinds.add(child.kind)
            todo.append(child)
    return ("ok", "cancelled", *sorted(kinds))


class Families:
    """The metrics with labels; one object so that `ModelMetrics` can resolve its children."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"breakwater_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            # Thresholds are equal in all workers but for the moment of a reload.
            return Gauge(
                f"breakwater_{name}",
                text,
                labels,
                registry=registry,
                multiprocess_mode="mostrecent",
            )

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"breakwater_{name}", text, labels, registry=registry, buckets=buckets)

        self.requests = counter(
            "requests", "Inference requests finished.", "model", "action", "outcome"
        )
        self.samples = counter("samples", "Samples scored.", "model", "verdict")
        self.stage = histogram(
            "stage_seconds", "Time spent by stage.", SECONDS_BUCKETS, "model", "stage"
        )
        self.added = histogram(
            "added_seconds",
            "Time the proxy added: all but the client's own call to the model server.",
            *(SECONDS_BUCKETS, "model"),
        )
        self.detector = histogram(
            "detector_seconds",
            "Time of one detector on one batch.",
            SECONDS_BUCKETS,
            *("model", "detector"),
        )
        self.p_value = histogram(
            "detector_p_value", "Conformal p-values.", P_VALUE_BUCKETS, "model", "detector"
        )
        self.failures = counter(
            "detector_failures", "Requests without a verdict.", "model", "reason"
        )
        self.fail_open = counter(
            "fail_open", "Requests passed although no verdict was reached.", "model", "reason"
        )
        self.aggregations = counter(
            "aggregations", "Purified requests to answer from several copies.", "model", "result"
        )
        self.unscored = counter("unscored", "Requests passed unscored.", "model", "reason")
        self.stages_skipped = counter(
            "stages_skipped", "Stages not begun: they would have overrun.", "model", "stage"
        )
        self.circuit_opened = counter(
            "detector_circuit_opened",
            "Times a detector was left out because it kept failing or overrunning.",
            *("model", "detector"),
        )
        # 1 where it is left out in any worker.
        self.circuit_open = Gauge(
            "breakwater_detector_circuit_open",
            "Whether a detector is left out for now (1) or at work (0).",
            ("model", "detector"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.skipped = counter(
            "observe_skipped", "Requests not scored in observe mode: queue full.", "model"
        )
        self.shadow_samples = counter(
            "shadow_samples",
            "Samples scored by a shadow policy too, by the verdicts of both.",
            *("model", "verdict", "shadow"),
        )
        self.shadow_disagreements = counter(
            "shadow_disagreements",
            "Samples with another verdict or action, by what either policy would do.",
            *("model", "action", "shadow"),
        )
        self.shadow_skipped = counter(
            "shadow_skipped", "Requests not scored by the shadow policy.", "model", "reason"
        )
        self.shadow_failures = counter(
            "shadow_failures", "Requests the shadow policy reached no verdict on.", "model"
        )
        self.bytes_in = counter("received_bytes", "Request bytes from clients.", "model")
        self.bytes_out = counter("sent_bytes", "Response bytes to clients.", "model")
        self.upstream_errors = counter(
            "upstream_errors", "Errors from the model server.", "model", "code"
        )
        self.wasted = counter(
            "upstream_wasted",
            "Calls to the model whose answer was void: blocked, purified or refused meanwhile.",
            *("model", "reason"),
        )
        self.wasted_s = counter(
            "upstream_wasted_seconds", "Time of calls whose answer was void.", "model"
        )
        # 0 where any worker has fallen back: each looks at its own requests.
        self.speculative = Gauge(
            "breakwater_dispatch_speculative",
            "Whether requests are sent to the model before their verdict (1) or after it (0).",
            ("model",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.history_alarms = counter(
            "history_alarms",
            "Requests of a series that looks like an attack.",
            "model",
        )
        self.shared_memory = counter(
            "shared_memory_passthrough", "Shared-memory inputs forwarded unseen.", "model"
        )
        self.threshold = gauge(
            "score_threshold",
            "Fused score above which a sample is suspicious.",
            "model",
            "evidence",
        )
        self.fpr = gauge(
            "calibrated_false_positive_ratio",
            "Upper confidence bound of the false-positive rate at the threshold.",
            *("model", "evidence"),
        )
        self.calibration_timestamp = gauge(
            "calibration_timestamp_seconds",
            "When the calibration in force was made, seconds since 1970.",
            "model",
        )
        # 1 where any worker says so: each looks at its own traffic.
        self.calibration_stale = Gauge(
            "breakwater_calibration_stale",
            "Whether the calibration should be made anew (1), by the reason.",
            ("model", "reason"),
            registry=registry,
            multiprocess_mode="livemax",
        )


class ModelMetrics:
    """One model's metrics with their children resolved; the only thing the request path touches."""

    __slots__ = (
        "_added",
        "_aggregations",
        "_bytes_in",
        "_bytes_out",
        "_circuit_opened",
        "_detector",
        "_evidence",
        "_fail_open",
        "_failures",
        "_families",
        "_history_alarms",
        "_is_calibrated",
        "_model",
        "_p_value",
        "_requests",
        "_samples",
        "_shared_memory",
        "_skipped",
        "_stage",
        "_stages_skipped",
        "_unscored",
        "_upstream_errors",
        "_wasted",
        "_wasted_s",
    )

    def __init__(self, families: Families, model: str, detectors: Sequence[str]) -> None:
        self._families = families
        self._model = model
        self._evidence: set[str] = set()
        self._is_calibrated = False
        self._requests: dict[tuple[str, str], _Inc] = {
            (action, outcome): families.requests.labels(model, action, outcome).inc
            for action in (*ACTIONS, OTHER)
            for outcome in ((*_outcomes(), OTHER) if action != OTHER else (OTHER,))
        }
        self._samples = _counters(families.samples, model, VERDICTS)
        self._stage = _observers(families.stage, model, STAGES)
        self._added = families.added.labels(model).observe
        self._detector = _observers(families.detector, model, detectors)
        self._p_value = _observers(families.p_value, model, detectors)
        self._stages_skipped = _counters(families.stages_skipped, model, SKIPPABLE)
        self._circuit_opened = _counters(families.circuit_opened, model, detectors)
        for detector in detectors:
            families.circuit_open.labels(model, detector).set(0)
        self._failures = _counters(families.failures, model, FAILURE_REASONS)
        self._fail_open = _counters(families.fail_open, model, FAILURE_REASONS)
        self._aggregations = _counters(families.aggregations, model, AGGREGATIONS)
        self._unscored = _counters(families.unscored, model, UNSCORED_REASONS)
        self._upstream_errors = _counters(families.upstream_errors, model, GRPC_CODES)
        self._wasted = _counters(families.wasted, model, WASTED_REASONS)
        self._wasted_s = families.wasted_s.labels(model).inc
        self._skipped = families.skipped.labels(model).inc
        self._history_alarms = families.history_alarms.labels(model).inc
        self._shared_memory = families.shared_memory.labels(model).inc
        self._bytes_in = families.bytes_in.labels(model).inc
        self._bytes_out = families.bytes_out.labels(model).inc

    def request(self, action: str, outcome: str) -> None:
        """Count a finished request. Outcome: `ok` or the `kind` of its error."""
        requests = self._requests
        inc = requests.get((action, outcome)) or requests.get((action, OTHER))
        (inc or requests[OTHER, OTHER])()

    def stage(self, stage: str, seconds: float) -> None:
        """Record the time a request spent in one of `STAGES`; others are ignored."""
        if observe := self._stage.get(stage):
            observe(seconds)

    def added(self, seconds: float) -> None:
        """Record the time the proxy added to a request."""
        self._added(max(0.0, seconds))

    def detector(self, name: str, seconds: float) -> None:
        """Record one detector's time on one batch; unconfigured names are ignored."""
        if observe := self._detector.get(name):
            observe(seconds)

    def p_value(self, detector: str, p: float) -> None:
        """Record one sample's conformal p-value; unconfigured names and NaN are ignored."""
        # A single NaN would make the histogram's sum NaN for good.
        if p == p and (observe := self._p_value.get(detector)):
            observe(p)

    def sample(self, verdict: str) -> None:
        """Count one scored sample."""
        (self._samples.get(verdict) or self._samples[OTHER])()

    def detector_failure(self, reason: str) -> None:
        """Count a request that got no verdict."""
        (self._failures.get(reason) or self._failures[OTHER])()

    def fail_open(self, reason: str) -> None:
        """Count a request passed although it got no verdict."""
        (self._fail_open.get(reason) or self._fail_open[OTHER])()

    def aggregation(self, result: str) -> None:
        """Count a purified request that was to be answered from several copies."""
        (self._aggregations.get(result) or self._aggregations[OTHER])()

    def unscored(self, reason: str) -> None:
        """Count a request that policy lets pass without a score."""
        (self._unscored.get(reason) or self._unscored[OTHER])()

    def stage_skipped(self, stage: str) -> None:
        """Count a stage, one of `SKIPPABLE`, that was not begun since it would have overrun."""
        (self._stages_skipped.get(stage) or self._stages_skipped[OTHER])()

    def circuit(self, detector: str, *, is_open: bool) -> None:
        """Publish whether a configured detector is left out, and count that it came to that."""
        if is_open:
            (self._circuit_opened.get(detector) or self._circuit_opened[OTHER])()
        if detector in self._detector:
            self._families.circuit_open.labels(self._model, detector).set(is_open)

    def observe_skipped(self) -> None:
        """Count a request of observe mode dropped from scoring because the queue was full."""
        self._skipped()

    def bytes(self, in_: int, out: int) -> None:
        """Add a request's size and its response's size, in bytes as on the wire."""
        self._bytes_in(in_)
        self._bytes_out(out)

    def upstream_error(self, code_name: str) -> None:
        """Count an error of the model server by the name of its gRPC status code."""
        (self._upstream_errors.get(code_name) or self._upstream_errors[OTHER])()

    def upstream_wasted(self, reason: str, seconds: float) -> None:
        """Count a call whose answer was void, by one of `WASTED_REASONS`, and its time."""
        (self._wasted.get(reason) or self._wasted[OTHER])()
        self._wasted_s(seconds)

    def dispatch(self, *, speculative: bool) -> None:
        """Publish the dispatch in force."""
        self._families.speculative.labels(self._model).set(speculative)

    def history_alarm(self) -> None:
        """Count a request that is part of a series that looks like an attack."""
        self._history_alarms()

    def shared_memory_passthrough(self) -> None:
        """Count an input forwarded unseen in shared memory."""
        self._shared_memory()

    def threshold(self, evidence: str, value: float, fpr_upper: float) -> None:
        """Publish the threshold in force for one evidence set and its calibrated rate (0..1)."""
        self._evidence.add(evidence)
        self._families.threshold.labels(self._model, evidence).set(value)
        self._families.fpr.labels(self._model, evidence).set(fpr_upper)

    def calibration(self, made_s: float) -> None:
        """Publish when the calibration in force was made, seconds since 1970; NaN if unknown."""
        self._is_calibrated = True
        self._families.calibration_timestamp.labels(self._model).set(made_s)
        for reason in STALE_REASONS:  # 0 where nobody has said anything
            self._families.calibration_stale.labels(self._model, reason)

    def calibration_stale(self, reason: str, is_stale: bool) -> None:
        """Publish whether the calibration is stale, for one of `STALE_REASONS`."""
        if reason in STALE_REASONS:
            self._families.calibration_stale.labels(self._model, reason).set(is_stale)

    def retire(self) -> None:
        """The model is no longer scored: blank its thresholds, and let nothing call for action.

        A multiprocess file cannot drop a series.
        """
        for evidence in tuple(self._evidence):
            self.threshold(evidence, math.nan, math.nan)
        for detector in self._detector:
            self.retire_detector(detector)
        if self._is_calibrated:
            self._families.calibration_timestamp.labels(self._model).set(math.nan)
            for reason in STALE_REASONS:
                self.calibration_stale(reason, False)

    @property
    def detectors(self) -> Set[str]:
        """Those configured."""
        return self._detector.keys()

    def retire_detector(self, detector: str) -> None:
        """A detector is no longer configured: it is not left out either."""
        self._families.circuit_open.labels(self._model, detector).set(0)


def _counters(family: Counter, model: str, values: Sequence[str]) -> dict[str, _Inc]:
    return {value: family.labels(model, value).inc for value in (*values, OTHER)}


def _observers(family: Histogram, model: str, values: Sequence[str]) -> dict[str, _Observe]:
    return {value: family.labels(model, value).observe for value in values}
