"""What came of every request of one fault: whose answer it was, when it came, and what is owed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SERVED, PURIFIED, REFUSED = "served", "purified", "refused"
SWAPPED, UNREADABLE, LOST, LATE = "swapped", "unreadable", "lost", "late"
STREAK, STEADY_S = 12, 1.2
"""So many requests in a row, for so long, that are answered as they should be are a recovery: long
enough for clients that still wait for a connection to be heard of."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request."""

    told: str
    """One of the names above, or the name of a gRPC status."""
    sent_s: float
    done_s: float
    tampered: bool = False
    closed: bool = False
    """Whether the model's `on_failure` is closed: nothing tampered may be served."""

    @property
    def is_bypass(self) -> bool:
        """Whether what should have been purified or refused was served as it was sent."""
        return self.tampered and self.told == SERVED

    @property
    def is_right(self) -> bool:
        """Whether it is what a healthy proxy says: everything is judged, and answered."""
        return self.told in (PURIFIED, REFUSED) if self.tampered else self.told == SERVED


@dataclass
class Ledger:
    """The outcomes of one fault, from before it to after the recovery.

    Args:
        tolerated: statuses and outcomes that are no answer and that the promise allows meanwhile.
        suspends: whether tampered inputs may pass at the model whose `on_failure` is open.
    """

    tolerated: frozenset[str] = frozenset()
    suspends: bool = False
    outcomes: list[Outcome] = field(default_factory=list)
    asked: int = 0
    begun_s: float = float("inf")
    healed_s: float = float("inf")
    recovered_s: float | None = None
    examples: list[str] = field(default_factory=list)
    _streak: int = 0
    _since_s: float = 0.0

    def note(self, outcome: Outcome) -> None:
        """Count a request that has ended."""
        self.outcomes.append(outcome)
        if not self._is_in_order(outcome) and len(self.examples) < 5:
            at_s = outcome.sent_s - self.begun_s
            kind = "tampered" if outcome.tampered else "clean"
            self.examples.append(f"{outcome.told} ({kind}, sent at {at_s:+.1f} s)")
        if outcome.sent_s < self.healed_s or self.recovered_s is not None:
            return
        if not outcome.is_right:
            self._streak = 0
            return
        if not self._streak:
            self._since_s = outcome.done_s
        self._streak += 1
        if self._streak >= STREAK and outcome.done_s >= self._since_s + STEADY_S:
            self.recovered_s = self._since_s

    @property
    def recovery_s(self) -> float | None:
        """From the end of the fault to the recovery; None: there was none."""
        return None if self.recovered_s is None else max(0.0, self.recovered_s - self.healed_s)

    @property
    def swapped(self) -> int:
        """Answers that belong to other requests."""
        return sum(each.told == SWAPPED for each in self.outcomes)

    @property
    def lost(self) -> int:
        """Requests that never ended, or ended in a way that nothing excuses."""
        bad = sum(
            not self._is_in_order(each) and not self._is_judged(each) for each in self.outcomes
        )
        return bad + self.asked - len(self.outcomes)

    @property
    def hung(self) -> int:
        """Requests that outlived their deadline."""
        return sum(each.told == LATE for each in self.outcomes)

    @property
    def opened(self) -> int:
        """Tampered inputs that were served while the promise says fail-open."""
        return sum(each.is_bypass and self._may_open(each) for each in self.outcomes)

    @property
    def bypasses(self) -> int:
        """Tampered inputs that were served though nothing allows it."""
        return sum(each.is_bypass and not self._may_open(each) for each in self.outcomes)

    def counts(self) -> Counter[str]:
        """How many requests came to what."""
        return Counter(each.told for each in self.outcomes)

    def _is_judged(self, outcome: Outcome) -> bool:
        """Counted elsewhere: as swapped, late or a bypass."""
        return outcome.told in (SWAPPED, LATE) or outcome.is_bypass

    def _is_excused(self, outcome: Outcome) -> bool:
        """Whether it was under way between the fault and the recovery."""
        until_s = float("inf") if self.recovered_s is None else self.recovered_s
        return outcome.done_s >= self.begun_s and outcome.sent_s <= until_s

    def _may_open(self, outcome: Outcome) -> bool:
        return self.suspends and not outcome.closed and self._is_excused(outcome)

    def _is_in_order(self, outcome: Outcome) -> bool:
        if outcome.is_right or (outcome.is_bypass and self._may_open(outcome)):
            return True
        return outcome.told in self.tolerated and self._is_excused(outcome)
