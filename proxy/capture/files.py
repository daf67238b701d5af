"""A captured request as the bytes of a file: a line of JSON, and what is kept of the input."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.audit_line import MAX_SAMPLES, MAX_TEXT, said
from proxy.flow import Flow
from proxy.records.record import notable_samples

FORMAT = "breakwater capture 1"
LONGEST_FACTS = 1 << 20
"""Bytes of the JSON line; ours have a tenth of that."""
_KINDS = ("none", "thumbnail", "full")


@dataclass(frozen=True, slots=True)
class Captured:
    """One file's content."""

    facts: Mapping[str, Any]
    payload: bytes
    """The request (`full`), a PNG (`thumbnail`), or nothing."""

    @property
    def kind(self) -> str:
        """What the payload is: none, thumbnail or full."""
        return str(self.facts["payload"])


def facts(when: datetime, flow: Flow, *, principal: str, calibration: str) -> dict[str, Any]:
    """What is kept of a request beside its input.

    Args:
        when: it finished.
        flow: the request.
        principal: hash of the principal.
        calibration: digest of the model's defence.
    """
    return {
        "format": FORMAT,
        "time": said(when),
        "request_id": flow.request_id,
        "principal": principal,
        "model": flow.model[:MAX_TEXT],
        "version": flow.version[:MAX_TEXT],
        "calibration": calibration,
        "verdict": flow.verdict,
        "action": flow.action,
        "outcome": flow.outcome,
        "streamed": flow.streamed,
        "chain": flow.chain,
        "quarantined": flow.quarantined,
        "samples_total": len(flow.samples),
        "samples": [_sample(flow, index) for index in notable_samples(flow)[:MAX_SAMPLES]],
    }


def _sample(flow: Flow, index: int) -> dict[str, Any]:
    sample = flow.samples[index]
    return {
        "index": index,
        "verdict": sample.verdict,
        "score": _number(sample.score),
        "threshold": _number(sample.threshold),
        "scores": {name: _number(score) for name, score in sample.scores.items()},
        "p_values": {name: _number(p) for name, p in sample.p_values.items()},
        "reason": sample.reason[:MAX_TEXT],
        "alarm": sample.alarm,
    }


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def pack(said: Mapping[str, Any], request: bytes, kind: str, payload: bytes) -> bytes:
    """The file's content.

    Args:
        said: the facts.
        request: as it was inspected; its digest is kept whatever else is.
        kind: what the payload is.
        payload: what is kept of the input.
    """
    head = {
        **said,
        "request_bytes": len(request),
        "request_sha256": hashlib.sha256(request).hexdigest(),
        "payload": kind,
        "payload_bytes": len(payload),
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + payload


def unpack(content: bytes) -> Captured:
    """The inverse of `pack`.

    Raises:
        ValueError: it is none of our files, or not as it was written.
    """
    line, _, payload = content.partition(b"\n")
    if len(line) > LONGEST_FACTS:
        raise ValueError("not a captured request")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not a captured request") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("not a captured request")
    if not isinstance(found.get("model"), str) or found.get("payload") not in _KINDS:
        raise ValueError("not a captured request")
    if found.get("payload_bytes") != len(payload):
        raise ValueError("cut off, or something was added")
    if found.get("payload_sha256") != hashlib.sha256(payload).hexdigest():
        raise ValueError("not as it was written: the digest differs")
    return Captured(found, payload)
