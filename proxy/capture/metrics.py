"""What is published of the captures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

DROPS = ("queue", "too_large", "disk", "error")


class CaptureMetrics:
    """Files, bytes, and what was not captured."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # All workers look at the same folder.
        self._files = Gauge(
            "breakwater_capture_files",
            "Captured requests in the folder.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._bytes = Gauge(
            "breakwater_capture_bytes",
            "Bytes of them.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        dropped = Counter(
            "breakwater_capture_dropped",
            "Suspicious requests that were not captured, by the reason.",
            ["reason"],
            registry=registry,
        )
        self._dropped = {reason: dropped.labels(reason).inc for reason in DROPS}

    def kept(self, files: int, size: int) -> None:
        """Set what is in the folder."""
        self._files.set(files)
        self._bytes.set(size)

    def dropped(self, reason: str) -> None:
        """Count a request that was not captured, for one of `DROPS`."""
        self._dropped[reason]()
