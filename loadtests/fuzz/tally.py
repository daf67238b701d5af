"""What became of the cases of one target, and how long each may take."""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from loadtests.fuzz.reading import Difference, reason
from proxy.errors import ProxyError

CASE_S = 3.0
"""Processor time one case may take; ordinary ones take some 0.0001 s."""
_KEPT = 20

T = TypeVar("T")


class Hang(BaseException):
    """A case took longer than CASE_S."""


@dataclass
class Tally:
    """Counts of one target; those of several processes can be added."""

    cases: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    """Cases by reason."""
    found: Counter[str] = field(default_factory=Counter)
    """Cases by what went wrong: `difference`, `crash` or `hang`."""
    examples: list[tuple[str, str, str]] = field(default_factory=list)
    """(kind, text, the case in hexadecimal) of the first of them."""

    def add(self, other: Tally) -> None:
        """Take another's cases in."""
        self.cases += other.cases
        self.accepted += other.accepted
        self.seconds += other.seconds
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.refused += other.refused
        self.found += other.found
        self.examples = (self.examples + other.examples)[:_KEPT]

    def note(self, kind: str, error: BaseException, data: bytes) -> None:
        """Count what must not be."""
        self.found[kind] += 1
        if len(self.examples) < _KEPT:
            text = f"{type(error).__name__}: {error}"[:300]
            self.examples.append((kind, text, data[:4096].hex()))

    def attempt(self, data: bytes, check: Callable[[], T]) -> T | None:
        """Try one case; None where it was refused or something is wrong."""
        self.cases += 1
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_VIRTUAL, CASE_S)
        try:
            result = check()
            self.accepted += 1
            return result
        except ProxyError as error:
            self.refused[reason(error)] += 1
        except Difference as error:
            self.note("difference", error, data)
        except Hang as error:
            self.note("hang", error, data)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what is looked for)
            self.note("crash", error, data)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self.slowest_ms = max(self.slowest_ms, 1000 * (time.perf_counter() - began))
        return None


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise Hang(f"more than {CASE_S} s of processor time")


@contextmanager
def measured(tally: Tally) -> Iterator[Tally]:
    """Add the time and the memory of what is inside; cases are bounded only here."""
    before = signal.signal(signal.SIGVTALRM, _too_long)
    began = time.perf_counter()
    try:
        yield tally
    finally:
        signal.signal(signal.SIGVTALRM, before)
        tally.seconds += time.perf_counter() - began
        tally.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
