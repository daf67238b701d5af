"""When a calibration counts as old, and that it is said once."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry

from proxy.calibration_age import DAY_S, CalibrationAge, made_s
from proxy.config import Model
from proxy.metrics import Metrics

MADE_S = 1_767_225_600.0
"""2026-01-01 in UTC."""


@pytest.mark.parametrize(
    "date",
    [
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00Z",
        "2026-01-01T02:00:00+02:00",
        "2026-01-01T00:00:00",
        "2026-01-01",
    ],
)
def test_dates_are_read_as_utc_where_they_name_no_zone(date: str) -> None:
    assert made_s(date) == MADE_S


@pytest.mark.parametrize("date", ["", "yesterday", "2026-13-01", "\x00", "9" * 400])
def test_an_unreadable_date_is_nan(date: str) -> None:
    assert math.isnan(made_s(date))


def age(date: str) -> tuple[CalibrationAge, CollectorRegistry]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.configure({"m": ["grid"]})
    return CalibrationAge(
        "m", date, Model(calibration_max_age_days=2), metrics.model("m")
    ), registry


def stale(registry: CollectorRegistry) -> float | None:
    labels = {"model": "m", "reason": "age"}
    return registry.get_sample_value("breakwater_calibration_stale", labels)


def test_it_grows_old_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    subject, registry = age("2026-01-01T00:00:00Z")
    made = registry.get_sample_value("breakwater_calibration_timestamp_seconds", {"model": "m"})
    assert made == MADE_S
    for days in (-3.0, 0.0, 2.0):  # a clock may be behind the one that dated it
        subject.look(MADE_S + days * DAY_S)
        assert stale(registry) == 0
    assert not caplog.records
    for _ in range(3):
        subject.look(MADE_S + 2 * DAY_S + 1)
        assert stale(registry) == 1
    (told,) = caplog.records
    assert told.getMessage() == (
        "model m was calibrated 2 days ago, more than calibration_max_age_days: 2; calibrate again"
    )


def test_a_date_that_nobody_can_read_counts_as_old() -> None:
    subject, registry = age("long ago")
    subject.look(MADE_S)
    assert stale(registry) == 1
