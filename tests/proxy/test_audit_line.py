"""What audit lines say, and what they never say."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from proxy.audit_line import MAX_SAMPLES, line
from proxy.flow import Action, Flow, SampleVerdict, Verdict

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
SUSPECT = SampleVerdict(
    Verdict.SUSPICIOUS, score=3.14159265, threshold=2.0, p_values={"grid": 0.001}, reason="grid"
)
CLEAN = SampleVerdict(Verdict.PASS, score=1.0, threshold=2.0, p_values={"grid": 0.5})


def flow(**fields: Any) -> Flow:
    defaults: dict[str, Any] = {
        "request_id": "r1",
        "arrival_s": 0.0,
        "deadline_s": None,
        "principal": "10.0.0.1",
        "model": "cnn",
        "version": "1",
        "samples": (CLEAN, SUSPECT),
        "action": Action.PURIFY,
        "outcome": "ok",
        "stage_s": {"score": 0.0012345678, "total": 0.01},
    }
    return Flow(**(defaults | fields))


def test_a_line_tells_what_happened() -> None:
    assert json.loads(json.dumps(line(NOON, flow(client_id="c", bytes_in=7)))) == {
        "time": "2026-01-02T12:00:00.123Z",
        "request_id": "r1",
        "client_id": "c",
        "principal": "10.0.0.1",
        "model": "cnn",
        "version": "1",
        "streamed": False,
        "verdict": "suspicious",
        "failure": "",
        "chain": 0,
        "quarantined": False,
        "action": "purify",
        "outcome": "ok",
        "samples_total": 2,
        "samples": [
            {
                "index": 1,
                "verdict": "suspicious",
                "score": 3.14159,
                "threshold": 2.0,
                "p_values": {"grid": 0.001},
                "reason": "grid",
                "alarm": False,
            }
        ],
        "stage_ms": {"score": 1.235, "total": 10.0},
        "bytes_in": 7,
        "bytes_out": 0,
    }


def test_times_are_utc_whatever_the_zone() -> None:
    cet = NOON.astimezone(timezone(timedelta(hours=1)))
    assert line(cet, flow())["time"] == "2026-01-02T12:00:00.123Z"


def test_numbers_json_does_not_have_are_null() -> None:
    failed = SampleVerdict(Verdict.FAILED, math.nan, math.inf, {"grid": math.nan}, "error")
    sample = json.loads(json.dumps(line(NOON, flow(samples=(failed,))), allow_nan=False))
    assert sample["samples"][0]["score"] is None
    assert sample["samples"][0]["threshold"] is None
    assert sample["samples"][0]["p_values"] == {"grid": None}


def test_lines_are_bounded_whatever_the_batch() -> None:
    entry = line(NOON, flow(samples=(CLEAN,) + (SUSPECT,) * 1000))
    assert entry["samples_total"] == 1001
    assert len(entry["samples"]) == MAX_SAMPLES
    assert entry["samples"][0]["index"] == 1
