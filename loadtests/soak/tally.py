"""Every request's outcome, apart for fault windows and the time outside them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

LONGEST_S = 15.0
"""A fault may excuse errors no longer than this."""

RIGHT, WRONG, MISSING = "right", "wrong", "missing"
OTHER_VERDICT = "right, but of another verdict"
"""The request's own answer, though purified where it was not at first, or the other way round."""


@dataclass
class Window:
    """The time in which a fault excuses errors."""

    fault: str
    start_s: float
    end_s: float = float("inf")
    recovered: bool = False

    @property
    def length_s(self) -> float:
        """How long it was, or is by now."""
        return min(self.end_s, time.monotonic()) - self.start_s


@dataclass
class Interval:
    """Some seconds of the run."""

    at_s: float
    """Of its end, from the start of the run."""
    requests_per_s: float
    errors: int
    p50_ms: float
    p99_ms: float
    resident_mib: float


@dataclass
class Tally:
    """What came of all requests."""

    windows: list[Window] = field(default_factory=list)
    inside: Counter[str] = field(default_factory=Counter)
    """Outcomes of requests that were under way during a window."""
    outside: Counter[str] = field(default_factory=Counter)
    bursts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Outcomes of the requests that are themselves the fault: kind, outcome."""
    tampered: int = 0
    """Tampered images answered outside windows, and how many of them untouched:"""
    untouched: int = 0
    untouched_inside: int = 0
    """And within windows: Triton is back, and the sidecar does not yet judge."""
    sent: int = 0
    unsent: int = 0
    streak: int = 0
    """Requests in a row that were right, of those sent after `restart_streak`."""
    examples: list[str] = field(default_factory=list)
    """The first few failures outside windows, in words."""
    _latencies_s: list[float] = field(default_factory=list)
    _errors: int = 0
    _since_s: float = 0.0
    _last_s: float = 0.0

    def is_excused(self, sent_s: float, done_s: float) -> bool:
        """Whether a request was under way during a window."""
        return any(
            sent_s <= min(w.end_s, w.start_s + LONGEST_S) and done_s >= w.start_s
            for w in reversed(self.windows)
        )

    def note(self, outcome: str, sent_s: float, done_s: float, told: str = "") -> bool:
        """Count a request's outcome; returns whether it was excused."""
        excused = self.is_excused(sent_s, done_s)
        (self.inside if excused else self.outside)[outcome] += 1
        if outcome in (RIGHT, OTHER_VERDICT):
            self._latencies_s.append(done_s - sent_s)
            self.streak += sent_s >= self._since_s
        else:
            self.streak = 0
            self._errors += 1
            if not excused and len(self.examples) < 20:
                self.examples.append(f"{outcome}: {told}")
        return excused

    def restart_streak(self) -> None:
        """Count right answers in a row from here on."""
        self.streak, self._since_s = 0, time.monotonic()

    def begin(self) -> None:
        """The first interval begins now."""
        self._last_s = time.monotonic()

    def interval(self, started_s: float, resident_mib: float) -> Interval:
        """What happened since the last call."""
        now = time.monotonic()
        p50, p99 = np.percentile(self._latencies_s, (50, 99)) if self._latencies_s else (0, 0)
        made = Interval(
            at_s=round(now - started_s, 1),
            requests_per_s=round(len(self._latencies_s) / (now - self._last_s), 1),
            errors=self._errors,
            p50_ms=round(1000 * float(p50), 2),
            p99_ms=round(1000 * float(p99), 2),
            resident_mib=round(resident_mib, 1),
        )
        self._latencies_s, self._errors, self._last_s = [], 0, now
        return made

    def count(self, outcome: str) -> int:
        """All requests with this outcome."""
        return self.inside[outcome] + self.outside[outcome]

    @property
    def errors_outside(self) -> int:
        """Requests that were not answered right, and that no fault excuses."""
        fine = self.outside[RIGHT] + self.outside[OTHER_VERDICT]
        return self.outside.total() - fine
