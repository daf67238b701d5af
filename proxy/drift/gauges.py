"""What is published of the traffic's drift. Labels come from the calibration and closed sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

from proxy.drift.state import WINDOWS, State

_Mode = Literal["mostrecent", "livemax"]

LEFT_OUT = ("attack", "full")
"""Why a sample is not part of the population: its principal or series is held to be an attack, or
too many waited."""
WITHHELD = ("purify", "block", "widen", "suspend")
"""Actions that drift can take back; then what an alarm would have led to, but too few principals
raised it."""


class DriftMetrics:
    """The families, with the model as a label; one object a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str, mode: _Mode = "mostrecent") -> Gauge:
            # All workers are told the same: the latest that was told is in force.
            return Gauge(
                f"breakwater_{name}", text, labels, registry=registry, multiprocess_mode=mode
            )

        self._p_value = gauge(
            "drift_p_value",
            "Chance of such a difference from the calibration without drift, at the latest look.",
            *("model", "signal", "window"),
        )
        self._distance = gauge(
            "drift_distance",
            "How far the traffic is from the calibration, 0 to 1, at the latest look.",
            *("model", "signal", "window"),
        )
        self._alarm = gauge(
            "drift_alarm",
            "Whether the traffic is held to have drifted (1) or not (0).",
            "model",
            mode="livemax",
        )
        self._samples = gauge(
            "drift_samples",
            "Independent samples that a window's are worth, at the latest look.",
            *("model", "window"),
        )
        self._suspended = gauge(
            "blocking_suspended",
            "Whether drift keeps suspicious requests from being acted on, all or some (1).",
            "model",
            mode="livemax",  # a worker that has just begun has not been told yet
        )
        self._withheld = Counter(
            "breakwater_drift_withheld_actions",
            "Requests that were flagged instead, since the traffic has drifted (purify, block); "
            "alarms that led to nothing, since too few principals raised them (widen, suspend).",
            ("model", "action"),
            registry=registry,
        )
        self._left_out = Counter(
            "breakwater_drift_left_out_samples",
            "Scored samples that are not part of the population, by the reason.",
            ("model", "reason"),
            registry=registry,
        )

    def begin(self, model: str, signals: Sequence[str]) -> None:
        """Publish a model of which nothing is known yet; also blanks what was published of it."""
        for window in WINDOWS:
            self._samples.labels(model, window).set(0)
            for signal in signals:
                self._p_value.labels(model, signal, window).set(math.nan)
                self._distance.labels(model, signal, window).set(math.nan)
        self._alarm.labels(model).set(0)
        self._suspended.labels(model).set(0)
        for action in WITHHELD:  # 0 from the start, so that a first one shows in rates
            self._withheld.labels(model, action)
        for reason in LEFT_OUT:
            self._left_out.labels(model, reason)

    def publish(self, model: str, state: State, *, suspended: bool) -> None:
        """Publish what is held about a model's traffic now."""
        for window, look in state.looks.items():
            self._samples.labels(model, window).set(look.samples)
            for each in look.seen:
                self._p_value.labels(model, each.signal, window).set(each.p_value)
                self._distance.labels(model, each.signal, window).set(each.distance)
        self._alarm.labels(model).set(state.is_drifting)
        self._suspended.labels(model).set(suspended)

    def withheld(self, model: str, action: str) -> None:
        """Count a request that was flagged in place of one of `WITHHELD`."""
        if action in WITHHELD:
            self._withheld.labels(model, action).inc()

    def left_out(self, model: str, reason: str, count: int) -> None:
        """Count samples by one of `LEFT_OUT`."""
        self._left_out.labels(model, reason).inc(count)
