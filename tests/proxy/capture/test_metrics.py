"""What is published of the captures."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from proxy.capture.metrics import DROPS, CaptureMetrics


def test_reasons_are_a_closed_set() -> None:
    registry = CollectorRegistry()
    metrics = CaptureMetrics(registry)
    metrics.kept(3, 1000)
    metrics.dropped("disk")
    assert registry.get_sample_value("breakwater_capture_files") == 3
    assert registry.get_sample_value("breakwater_capture_bytes") == 1000
    counts = {
        reason: registry.get_sample_value("breakwater_capture_dropped_total", {"reason": reason})
        for reason in DROPS
    }
    assert counts == {"queue": 0, "too_large": 0, "disk": 1, "error": 0}
    with pytest.raises(KeyError):
        metrics.dropped("whatever")
