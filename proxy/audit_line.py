"""What the audit log says about a request: ids, verdicts and times, never pixels."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from proxy.flow import Flow, SampleVerdict, Verdict

MAX_TEXT = 256
"""Characters kept of any text a client chose."""
MAX_SAMPLES = 64
"""Samples described per line; `samples_total` tells how many there were."""


def line(when: datetime, flow: Flow) -> dict[str, Any]:
    """Return what is written about a request, ready for JSON.

    Args:
        when: it finished, with its time zone.
        flow: the request.
    """
    notable = [
        (index, sample)
        for index, sample in enumerate(flow.samples)
        if sample.verdict is not Verdict.PASS or sample.alarm
    ]
    return {
        "time": said(when),
        "request_id": flow.request_id,
        "client_id": flow.client_id[:MAX_TEXT],
        "principal": flow.principal[:MAX_TEXT],
        "model": flow.model[:MAX_TEXT],
        "version": flow.version[:MAX_TEXT],
        "streamed": flow.streamed,
        "verdict": flow.verdict,
        "failure": flow.failure,
        "chain": flow.chain,
        "quarantined": flow.quarantined,
        "action": flow.action,
        "outcome": flow.outcome,
        "samples_total": len(flow.samples),
        "samples": [_sample(*item) for item in notable[:MAX_SAMPLES]],
        "stage_ms": {stage: round(s * 1000, 3) for stage, s in flow.stage_s.items()},
        "bytes_in": flow.bytes_in,
        "bytes_out": flow.bytes_out,
    }


def _sample(index: int, sample: SampleVerdict) -> dict[str, Any]:
    return {
        "index": index,
        "verdict": sample.verdict,
        "score": _number(sample.score),
        "threshold": _number(sample.threshold),
        "p_values": {name: _number(p) for name, p in sample.p_values.items()},
        "reason": sample.reason[:MAX_TEXT],
        "alarm": sample.alarm,
    }


def _number(value: float) -> float | None:
    """Six digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def said(when: datetime) -> str:
    """A time in UTC, to the millisecond."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
