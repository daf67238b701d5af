"""Who has raised alarms, and for how long that is held against them. Pure, but for the clock.

It knows names and times; not queries, requests or what is done to a principal in quarantine.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from proxy.history.memory import Memory

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
_ROUNDING = 1e-9
_MODEL_BYTES, _PRINCIPAL_BYTES = (
    256,
    1024,
)  # of a name that are kept; longer ones are still told apart

_ENTRY = np.dtype(
    [
        ("key", "<u8", (2,)),  # of model and principal; 0: nobody
        ("half_life_s", "<f8"),  # 0 where a penalty is not known or does not count
        ("until", "<f8"),  # quarantine ends: says the same as the penalty, and needs no upkeep
        ("first", "<f8"),
        ("last", "<f8"),
        ("alarms", "<u8"),
        ("chain", "<u8"),
    ]
)


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


class Quarantine:
    """A penalty for each principal and model: grows with alarms, decays with time.

    An alarm adds 1, every half-life halves it, and a principal is in quarantine while it is 0.5 or
    more: for one half-life after one alarm, for one more after each doubling of the alarms.

    When more principals than `capacity` raise alarms, each new one takes the place of the smallest
    penalty, so that one alarm each from any number of names displaces nobody who raised several,
    but for the first time. Cost at 10,000 remembered: to ask 10 us, to raise an alarm 45 us, 1 ms
    for somebody new where it is full (measured 2026-11, one busy core).

    Known adaptive break: an attacker with a fresh principal for each query is never met again
    here; only the series itself gives him away.

    Args:
        clock: seconds of a clock that is never set, equal in all who have the memory: whoever sets
            the machine's to yesterday must not keep principals in quarantine until tomorrow.
        wall: seconds since 1970, for what people are shown. Default: the clock's own.
        capacity: most principals remembered, over all models; 1 or more.
        memory: where they are kept. Where others have it too, all but `is_quarantined` and
            `quarantined` is for a turn at it, an exclusive one for all that change something.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        wall: Callable[[], float] | None = None,
        capacity: int = 10_000,
        memory: Memory | None = None,
    ) -> None:
        memory = memory or Memory()
        self._clock = clock
        self._wall = wall or clock
        self._capacity = capacity
        self._used = memory.array(1, np.int64)
        # What is searched with every request lies together.
        self._keys = memory.array(capacity, np.uint64)
        self._entries = memory.array(capacity, _ENTRY)
        self._models = memory.array(capacity, f"S{_MODEL_BYTES}")
        self._principals = memory.array(capacity, f"S{_PRINCIPAL_BYTES}")

    def __len__(self) -> int:
        """Principals remembered, those who are free again among them."""
        return len(self._listed(self._clock()))

    @property
    def quarantined(self) -> int:
        """Principals in quarantine now."""
        return int(np.count_nonzero(self._entries["until"][self._rows()] > self._clock()))

    def is_quarantined(self, model: str, principal: str) -> bool:
        """Whether a principal's alarms at a model still count against it."""
        row = self._find(_key(model, principal))
        return row is not None and self._clock() < float(self._entries["until"][row])

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
        row = self._at(model, principal, now)
        entry = self._entries[row]
        self._convert(entry, half_life_s, now)
        if half_life_s:
            # What another replica said has no half-life; its time left is converted with ours.
            penalty = min(_penalty(float(entry["until"]) - now, half_life_s) + 1.0, HEAVIEST)
            entry["until"] = now + half_life_s * (1.0 + math.log2(penalty))
        else:
            entry["until"] = now
        entry["alarms"] += 1
        entry["last"] = now
        entry["chain"] = max(int(entry["chain"]), chain)
        return self._standing(row, now)

    def impose(self, model: str, principal: str, *, until: float) -> None:
        """Put a principal in quarantine because another replica did; again is harmless.

        Args:
            model: where it raised alarms.
            principal: who did.
            until: when its quarantine ends there, by our clock: now plus the standing's
                `quarantined_for_s`. Not a penalty: that would start anew each time it is heard of.
                What is not a time in the future is ignored.
        """
        now = self._clock()
        if now < until < math.inf:
            entry = self._entries[self._at(model, principal, now)]
            entry["until"] = max(float(entry["until"]), until)

    def standings(self) -> list[Standing]:
        """Everybody remembered, longest in quarantine and then latest alarm first."""
        now = self._clock()
        every = [self._standing(row, now) for row in self._listed(now).tolist()]
        return sorted(every, key=lambda s: (-s.quarantined_for_s, -s.last_alarm))

    def clear(self, principal: str | None = None, model: str | None = None) -> int:
        """Forget what is held against a principal, at a model; None stands for all.

        Returns:
            How many entries that were.
        """
        rows = self._rows()
        if model is not None:
            rows = rows[self._models[rows] == _cut(model, _MODEL_BYTES)]
        if principal is not None:
            rows = rows[self._principals[rows] == _cut(principal, _PRINCIPAL_BYTES)]
        self._keys[rows] = 0
        return len(rows)

    def _rows(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self._keys[: int(self._used[0])])

    def _find(self, key: npt.NDArray[np.uint64]) -> int | None:
        for row in np.flatnonzero(self._keys[: int(self._used[0])] == key[0]).tolist():
            if self._entries["key"][row, 1] == key[1]:
                return int(row)
        return None

    def _at(self, model: str, principal: str, now: float) -> int:
        """The entry; made, at the cost of the lightest, where there is none."""
        key = _key(model, principal)
        row = self._find(key)
        if row is None:
            row = self._vacant(now)
            self._keys[row] = 0
            self._models[row] = _cut(model, _MODEL_BYTES)
            self._principals[row] = _cut(principal, _PRINCIPAL_BYTES)
            self._entries[row] = (key, 0.0, -math.inf, now, now, 0, 0)
            self._keys[row] = key[0]  # last: from now on it is found
        return row

    def _vacant(self, now: float) -> int:
        used = int(self._used[0])
        vacant = np.ones(used, np.bool_)
        vacant[self._listed(now)] = False
        if vacant.any():
            return int(vacant.argmax())
        if used < self._capacity:
            self._used[0] = used + 1
            return used
        return self._lightest(now)

    def _convert(self, entry: Any, half_life_s: float, now: float) -> None:
        """The configuration may have changed: the penalty stays, and decays at the new pace."""
        old, until = float(entry["half_life_s"]), float(entry["until"])
        if old != half_life_s:
            if old:
                entry["until"] = now + (until - now) * half_life_s / old
            elif until <= now:
                entry["until"] = -math.inf
            entry["half_life_s"] = half_life_s

    def _lightest(self, now: float) -> int:
        """Whose penalty is smallest; of equals who is free first."""
        every = self._entries
        left_s, half_life_s = every["until"] - now, every["half_life_s"]
        with np.errstate(divide="ignore", invalid="ignore"):
            halved = np.exp2(np.minimum(left_s / half_life_s - 1.0, math.log2(HEAVIEST)))
        penalties = np.where(half_life_s > 0, halved, np.where(left_s > 0, _FREE, 0.0))
        near = np.flatnonzero(penalties <= penalties.min() * (1 + _ROUNDING)).tolist()
        return int(min(near, key=lambda row: (_of(every[row], now), every["until"][row])))

    def _listed(self, now: float) -> npt.NDArray[np.intp]:
        """The rows of those who have not been free for long."""
        rows = self._rows()
        every = self._entries[rows]
        free = now - every["until"] >= _NEGLIGIBLE_AFTER * every["half_life_s"]
        return rows[~(free & (now >= every["last"] + LISTED_S))]

    def _standing(self, row: int, now: float) -> Standing:
        entry = self._entries[row]
        since_1970_s = self._wall() - self._clock()
        return Standing(
            bytes(self._models[row]).decode(errors="ignore"),
            bytes(self._principals[row]).decode(errors="ignore"),
            alarms=int(entry["alarms"]),
            penalty=_of(entry, now),
            quarantined_for_s=max(0.0, float(entry["until"]) - now),
            first_alarm=float(entry["first"]) + since_1970_s,
            last_alarm=float(entry["last"]) + since_1970_s,
            longest_chain=int(entry["chain"]),
        )


def _key(model: str, principal: str) -> npt.NDArray[np.uint64]:
    """Two numbers, the first never 0, that nobody can find another pair of names for."""
    name = _cut(model)
    # Its length first: ("ab", "c") and ("a", "bc") must not meet.
    text = len(name).to_bytes(8, "big") + name + _cut(principal)
    key = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.uint64)
    return key | np.array([1, 0], np.uint64)


def _cut(name: str, most: int | None = None) -> bytes:
    return name.encode(errors="backslashreplace")[:most]


def _of(entry: Any, now: float) -> float:
    """The penalty of an entry."""
    left_s, half_life_s = float(entry["until"]) - now, float(entry["half_life_s"])
    return _penalty(left_s, half_life_s) if half_life_s else _FREE * (left_s > 0)


def _penalty(left_s: float, half_life_s: float) -> float:
    """The penalty of who is free in so many seconds; negative: was free so long ago."""
    # Bounded above in case the clock was set back.
    return float(min(2.0 ** min(left_s / half_life_s - 1.0, 10.0), HEAVIEST))
