"""Who has raised alarms, and for how long that is held against them. Pure, but for the clock.

It knows names and times; not queries, requests or what is done to a principal in quarantine.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

HEAVIEST = 64.0
"""A penalty grows no further: seven half-lives after its last alarm everybody is free."""
LONGEST = 1.0 + math.log2(HEAVIEST)
"""Half-lives a quarantine lasts at most."""
LISTED_S = 3600.0
"""Alarms of the last hour are shown, even where they put nobody in quarantine."""

_FREE = 0.5
"""The penalty below which a principal is free: what one alarm is worth after one half-life."""
_NEGLIGIBLE_AFTER = 5.0
"""Half-lives after which somebody free is forgotten; the penalty is 1/64 then."""
_LONGEST_HALF_LIFE_S = 1e9  # thirty years, so that an endless one still has an end in numbers
_SLACK = 64

Key = tuple[str, str]
"""Model and principal."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is held against one principal at one model."""

    model: str
    principal: str
    alarms: int
    """Raised here; 0 for somebody of whom only another replica complains."""
    penalty: float
    """One for each alarm, halved every half-life; at most `HEAVIEST`."""
    quarantined_for_s: float
    """Seconds until quarantine ends if nothing more happens; 0: not in quarantine."""
    first_alarm: float
    """Seconds since 1970; of what another replica said where there was no alarm here."""
    last_alarm: float
    longest_chain: int
    """Queries in the longest series that raised an alarm."""


@dataclass(slots=True)
class _Entry:
    key: Key
    half_life_s: float
    """0 where a penalty is not known or does not count; `until` is then all there is."""
    until: float
    """When quarantine ends. It says the same as the penalty, and needs no upkeep to decay."""
    first: float
    last: float
    alarms: int = 0
    chain: int = 0

    def penalty(self, now: float) -> float:
        if self.half_life_s:
            return _penalty(self.until - now, self.half_life_s)
        return _FREE if now < self.until else 0.0

    def is_negligible(self, now: float) -> bool:
        free_for_s = now - self.until
        return free_for_s >= _NEGLIGIBLE_AFTER * self.half_life_s and now >= self.last + LISTED_S

    def standing(self, now: float) -> Standing:
        left_s = max(0.0, self.until - now)
        return Standing(
            *self.key, self.alarms, self.penalty(now), left_s, self.first, self.last, self.chain
        )


class Quarantine:
    """A penalty for each principal and model: grows with alarms, decays with time.

    An alarm adds 1, every half-life halves it, and a principal is in quarantine while it is 0.5 or
    more: for one half-life after one alarm, for one more after each doubling of the alarms.

    When more principals than `capacity` raise alarms, each new one takes the place of the smallest
    penalty, so that one alarm each from any number of names displaces nobody who raised several,
    but for the first time. Cost: one dictionary lookup to ask, O(log n) to raise an alarm.

    Known adaptive break: an attacker with a fresh principal for each query is never met again
    here; only the series itself gives him away.

    Args:
        clock: seconds since 1970.
        capacity: most principals remembered, over all models; 1 or more.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, capacity: int = 10_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._entries: dict[Key, _Entry] = {}
        # Among entries of one half-life, who is free first has the smallest penalty, now and at any
        # later time: a heap for each. An item's time may be of an earlier alarm (`_lightest`).
        self._heaps: dict[float, list[tuple[float, int, _Entry]]] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        """Principals remembered, those who are free again among them."""
        return len(self._entries)

    @property
    def quarantined(self) -> int:
        """Principals in quarantine now; half a millisecond at 10,000 remembered."""
        now = self._clock()
        return sum(now < entry.until for entry in self._entries.values())

    def is_quarantined(self, model: str, principal: str) -> bool:
        """Whether a principal's alarms at a model still count against it."""
        entry = self._entries.get((model, principal))
        return entry is not None and self._clock() < entry.until

    def alarm(self, model: str, principal: str, *, half_life_s: float, chain: int = 0) -> Standing:
        """Hold an alarm against a principal.

        Args:
            model: where it was raised.
            principal: who raised it.
            half_life_s: of the penalty, as the model has it now; 0: list the alarm, no quarantine.
            chain: queries in the series that raised it.

        Returns:
            How the principal now stands.
        """
        now, half_life_s = self._clock(), min(half_life_s, _LONGEST_HALF_LIFE_S)
        entry = self._at((model, principal), half_life_s, now)
        if half_life_s:
            # What another replica said has no half-life; its time left is converted with ours.
            penalty = min(_penalty(entry.until - now, half_life_s) + 1.0, HEAVIEST)
            entry.until = now + half_life_s * (1.0 + math.log2(penalty))
        else:
            entry.until = now
        entry.alarms += 1
        entry.last = now
        entry.chain = max(entry.chain, chain)
        return entry.standing(now)

    def impose(self, model: str, principal: str, *, until: float) -> None:
        """Put a principal in quarantine because another replica did; again is harmless.

        Args:
            model: where it raised alarms.
            principal: who did.
            until: when its quarantine ends there, seconds since 1970: now plus the standing's
                `quarantined_for_s`. Not a penalty: that would start anew each time it is heard of.
                What is not a time in the future is ignored.
        """
        now = self._clock()
        if not now < until < math.inf:
            return
        entry = self._entries.get((model, principal)) or self._at((model, principal), 0.0, now)
        if until > entry.until:
            entry.until = until

    def standings(self) -> list[Standing]:
        """Everybody remembered, longest in quarantine and then latest alarm first."""
        now = self._clock()
        self._forget_negligible(now)
        every = [entry.standing(now) for entry in self._entries.values()]
        return sorted(every, key=lambda s: (-s.quarantined_for_s, -s.last_alarm))

    def clear(self, principal: str | None = None, model: str | None = None) -> int:
        """Forget what is held against a principal, at a model; None stands for all.

        Returns:
            How many entries that were.
        """
        gone = [k for k in self._entries if model in (None, k[0]) and principal in (None, k[1])]
        for key in gone:
            del self._entries[key]
        self._rebuild()
        return len(gone)

    def _at(self, key: Key, half_life_s: float, now: float) -> _Entry:
        """The entry of this half-life; made, at the cost of the lightest, where there is none."""
        old = self._entries.get(key)
        if old is not None and old.half_life_s == half_life_s:
            return old
        if old is None:
            self._forget_negligible(now)
            if len(self._entries) >= self._capacity:
                self._drop_lightest(now)
            entry = _Entry(key, half_life_s, until=-math.inf, first=now, last=now)
        else:  # the configuration has changed: the penalty stays, and decays at the new pace
            entry = replace(old, half_life_s=half_life_s)
            if old.half_life_s:
                entry.until = now + (old.until - now) * half_life_s / old.half_life_s
            elif old.until <= now:
                entry.until = -math.inf
        self._entries[key] = entry
        self._enter(entry)
        if sum(map(len, self._heaps.values())) > 2 * len(self._entries) + _SLACK:
            self._rebuild()
        return entry

    def _enter(self, entry: _Entry) -> None:
        heap = self._heaps.setdefault(entry.half_life_s, [])
        heapq.heappush(heap, (entry.until, next(self._serial), entry))

    def _rebuild(self) -> None:
        """Let go of heap items whose entries are gone."""
        self._heaps.clear()
        for entry in self._entries.values():
            self._enter(entry)

    def _lightest(self, heap: list[tuple[float, int, _Entry]]) -> _Entry | None:
        """The entry of a heap that is free first, with the items on the way to it put right."""
        while heap:
            until, serial, entry = heap[0]
            if self._entries.get(entry.key) is not entry:
                heapq.heappop(heap)
            elif until != entry.until:
                heapq.heapreplace(heap, (entry.until, serial, entry))
            else:
                return entry
        return None

    def _forget_negligible(self, now: float) -> None:
        for heap in self._heaps.values():
            while (entry := self._lightest(heap)) is not None and entry.is_negligible(now):
                del self._entries[entry.key]

    def _drop_lightest(self, now: float) -> None:
        lightest = [e for heap in self._heaps.values() if (e := self._lightest(heap)) is not None]
        least = min(lightest, key=lambda entry: (entry.penalty(now), entry.until))
        del self._entries[least.key]


def _penalty(left_s: float, half_life_s: float) -> float:
    """The penalty of who is free in so many seconds; negative: was free so long ago."""
    # Bounded above in case the clock was set back.
    return float(min(2.0 ** min(left_s / half_life_s - 1.0, 10.0), HEAVIEST))
