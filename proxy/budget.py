"""How long a request may wait for its defence, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.flow import Flow


class Budget:
    """How long a request may still wait for its defence; only time inside `running` counts."""

    def __init__(self, total_s: float) -> None:
        self._left_s = total_s
        self._since: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds left; 0 when spent."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return max(0.0, self._left_s - running)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time spent inside."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._left_s = self.left_s
            self._since = None


@contextmanager
def timed(flow: Flow, stage: str) -> Iterator[None]:
    """Add the time spent inside to one of the flow's stages."""
    started = time.monotonic()
    try:
        yield
    finally:
        add_time(flow, stage, time.monotonic() - started)
        if flow.trace is not None:
            flow.trace.stage(stage, started)


def count_as_queued(flow: Flow, seconds: float) -> None:
    """Of the time measured as `score`, this much was spent waiting for the device."""
    add_time(flow, "queue", seconds)
    add_time(flow, "score", -seconds)
    if flow.trace is not None:
        flow.trace.queued(seconds)


def add_time(flow: Flow, stage: str, seconds: float) -> None:
    """Add to one of the flow's stages."""
    flow.stage_s[stage] = flow.stage_s.get(stage, 0.0) + seconds
