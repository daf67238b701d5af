"""Circuit breakers: a detector that keeps failing is left out for a while, then tried again.

A detector that raises, or takes longer than the whole budget, costs every request its verdict.
Left out, it costs only its own evidence: the others judge by a rule calibrated for them alone, and
what they do not find suspicious still takes the policy's `on_failure`, since not everything was
looked at (`proxy.policy`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

FAILURES, WINDOW = 5, 20
"""So many failures among so many passes open the circuit: a bug that every input meets opens it at
once, an input that comes now and then does not."""
OPEN_S, LONGEST_S = 1.0, 60.0
"""How long it stays open at first; each failed probe doubles it, up to the latter."""
PROBE_S = 1.0
"""A probe that has not been heard of for so long is given up, and another request tries."""

Clock = Callable[[], float]


class State(StrEnum):
    """What a breaker lets through: everything, nothing, or one pass to see whether it works."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The circuit of one detector. Not safe for threads by itself; see `Circuits`.

    Args:
        now: seconds of a clock that does not go back.
    """

    def __init__(self, now: Clock = time.monotonic) -> None:
        self._now = now
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._open_s = OPEN_S
        self._until_s = 0.0
        self._probe_until_s = 0.0
        self.state = State.CLOSED

    def allows(self) -> bool:
        """Whether to make a pass now. True for one caller at a time where it is half open."""
        now = self._now()
        if self.state is State.CLOSED:
            return True
        if now < (self._until_s if self.state is State.OPEN else self._probe_until_s):
            return False
        self.state = State.HALF_OPEN
        self._probe_until_s = now + PROBE_S
        return True

    def succeeded(self) -> None:
        """A pass went well: what is half open closes."""
        if self.state is State.CLOSED:
            self._recent.append(True)
        elif self.state is State.HALF_OPEN:
            self.state = State.CLOSED
            self._open_s = OPEN_S
            self._recent.clear()

    def released(self) -> None:
        """The request that had the probe has ended, perhaps without coming to the detector."""
        self._probe_until_s = 0.0

    def failed(self) -> None:
        """A pass failed, or took too long. Late news while it is open changes nothing."""
        if self.state is State.OPEN:
            return
        self._recent.append(False)
        if self.state is State.HALF_OPEN:
            self._open_s = min(2 * self._open_s, LONGEST_S)
        elif self._recent.count(False) < FAILURES:
            return
        self.state = State.OPEN
        self._until_s = self._now() + self._open_s
        self._recent.clear()


@dataclass(frozen=True, slots=True)
class Admission:
    """What one request does about broken detectors."""

    left_out: frozenset[str] = frozenset()
    """Those it does without."""
    probing: frozenset[str] = frozenset()
    """Those it is to try."""


EVERYTHING = Admission()


class Circuits:
    """The breakers of one model's detectors; used by the event loop and the device thread alike.

    Args:
        names: the detectors.
    """

    def __init__(self, names: Iterable[str], now: Clock = time.monotonic) -> None:
        self.on_change: Callable[[str, State], None] = lambda name, state: None
        """Told a detector and its new state, on whatever thread that came about."""
        self._lock = threading.Lock()
        self._now = now
        self._breakers = {name: Breaker(now) for name in names}
        self._troubled = False

    @property
    def states(self) -> Mapping[str, State]:
        """Each detector's state, now."""
        return {name: breaker.state for name, breaker in self._breakers.items()}

    def reset(self) -> None:
        """Forget all passes: those so far were no requests'. Nobody is told."""
        with self._lock:
            self._breakers = {name: Breaker(self._now) for name in self._breakers}
            self._troubled = False

    def admit(self) -> Admission:
        """What the request that asks does without, and what it tries; `release` when it ends.

        A detector that is to be tried again is given to one request at a time.
        """
        if not self._troubled:  # the ordinary case, on the path of every request
            return EVERYTHING
        with self._lock:
            before = self.states
            names = frozenset(n for n, breaker in self._breakers.items() if not breaker.allows())
            self._tell(before)
            probing = frozenset(
                n for n, each in self._breakers.items() if each.state is State.HALF_OPEN
            )
        return Admission(names, probing - names)

    def release(self, admission: Admission) -> None:
        """The request has ended: what it was to try and did not come to, the next one tries."""
        if admission.probing:
            with self._lock:
                for name in admission.probing:
                    self._breakers[name].released()

    def succeeded(self, name: str) -> None:
        """A pass of this detector went well."""
        if not self._troubled:  # one more mark on a closed circuit, of whatever order
            self._breakers[name].succeeded()
            return
        with self._lock:
            before = self.states
            self._breakers[name].succeeded()
            self._tell(before)

    def failed(self, name: str) -> None:
        """A pass of this detector failed or overran."""
        with self._lock:
            before = self.states
            self._breakers[name].failed()
            self._tell(before)

    def _tell(self, before: Mapping[str, State]) -> None:
        after = self.states
        self._troubled = any(state is not State.CLOSED for state in after.values())
        for name, state in after.items():
            if state is not before[name]:
                self.on_change(name, state)
