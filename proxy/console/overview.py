"""A scrape as a small JSON document: counters, buckets and states by model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

CALIBRATION_FILE = "calibration.json"

_Sample = tuple[str, Mapping[str, str], float]


def summary(body: bytes) -> dict[str, Any]:
    """Return the figures the page shows, from the text of one scrape.

    Returns:
        `models`: per model requests and verdicts as counters, `stages` as histograms (`le` in
        milliseconds, cumulative `counts`; None stands for infinity), circuits, dispatch,
        thresholds. `totals`: what concerns the whole proxy. Everything counts from the start.
    """
    models: dict[str, dict[str, Any]] = {}
    totals: dict[str, float] = {}
    for name, labels, value in _samples(body):
        if (model := labels.get("model")) is None:
            if not labels and math.isfinite(value):
                totals[name] = value
        elif name in _READERS:
            _READERS[name](models.setdefault(model, blank()), labels, value)
    shown = {name: model for name, model in models.items() if name != "other" or _used(model)}
    return {"models": shown, "totals": totals}


def blank() -> dict[str, Any]:
    """Return the figures of a model of which nothing has been counted."""
    return {
        "requests": 0.0,
        "errors": 0.0,
        "actions": {},
        "verdicts": {},
        "stages": {},
        "circuits": {},
        "failures": 0.0,
        "fail_open": 0.0,
        "alarms": 0.0,
        "speculative": None,
        "records": None,
        "shadow": {"compared": 0.0, "disagreed": 0.0},
        "thresholds": {},
        "fpr_upper": {},
    }


def calibration_date(folder: Path) -> str | None:
    """Return when a calibration was made, RFC 3339; None where that cannot be read."""
    try:
        stored = json.loads((folder / CALIBRATION_FILE).read_bytes())
        return str(stored["provenance"]["date"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def age_hours(date: str | None, now: datetime) -> float | None:
    """Return how long ago a date was, in hours; None where it is unknown or no date."""
    try:
        made = datetime.fromisoformat(date or "")
    except ValueError:
        return None
    made = made if made.tzinfo else made.replace(tzinfo=UTC)
    return round((now - made).total_seconds() / 3600, 2)


def _samples(body: bytes) -> Iterator[_Sample]:
    # Most lines are none of ours, and parsing costs about 10 us a line.
    wanted = tuple(f"breakwater_{name}{{".encode() for name in _READERS)
    lines = (line for line in body.splitlines() if b"{" not in line or line.startswith(wanted))
    text = b"\n".join(line for line in lines if not line.startswith(b"#"))
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name.startswith("breakwater_"):
                yield sample.name.removeprefix("breakwater_"), sample.labels, sample.value


def _used(model: Mapping[str, Any]) -> bool:
    return bool(model["requests"])


def _request(model: dict[str, Any], labels: Mapping[str, str], value: float) -> None:
    model["requests"] += value
    if labels["outcome"] != "ok":
        model["errors"] += value
    model["actions"][labels["action"]] = model["actions"].get(labels["action"], 0.0) + value


def _bucket(model: dict[str, Any], labels: Mapping[str, str], value: float) -> None:
    stage = model["stages"].setdefault(labels["stage"], {"le": [], "counts": []})
    le = float(labels["le"])
    stage["le"].append(round(le * 1000, 6) if math.isfinite(le) else None)
    stage["counts"].append(value)


def _into(field: str, label: str) -> Callable[[dict[str, Any], Mapping[str, str], float], None]:
    def read(model: dict[str, Any], labels: Mapping[str, str], value: float) -> None:
        if math.isfinite(value):  # a retired model's thresholds are NaN
            model[field][labels[label]] = value

    return read


def _sum_of(field: str) -> Callable[[dict[str, Any], Mapping[str, str], float], None]:
    def read(model: dict[str, Any], _: Mapping[str, str], value: float) -> None:
        model[field] += value

    return read


def _records(model: dict[str, Any], _: Mapping[str, str], value: float) -> None:
    model["records"] = value


def _shadow(field: str) -> Callable[[dict[str, Any], Mapping[str, str], float], None]:
    def read(model: dict[str, Any], _: Mapping[str, str], value: float) -> None:
        model["shadow"][field] += value

    return read


def _dispatch(model: dict[str, Any], _: Mapping[str, str], value: float) -> None:
    model["speculative"] = value == 1


_READERS: dict[str, Callable[[dict[str, Any], Mapping[str, str], float], None]] = {
    "requests_total": _request,
    "samples_total": _into("verdicts", "verdict"),
    "stage_seconds_bucket": _bucket,
    "detector_circuit_open": _into("circuits", "detector"),
    "detector_failures_total": _sum_of("failures"),
    "fail_open_total": _sum_of("fail_open"),
    "history_alarms_total": _sum_of("alarms"),
    "dispatch_speculative": _dispatch,
    "records_kept": _records,
    "shadow_samples_total": _shadow("compared"),
    "shadow_disagreements_total": _shadow("disagreed"),
    "score_threshold": _into("thresholds", "evidence"),
    "calibrated_false_positive_ratio": _into("fpr_upper", "evidence"),
}
