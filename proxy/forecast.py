"""How long the next stage will take, from how long it took of late.

A stage that will overrun is not begun: waiting for it would cost the whole budget and bring
nothing. What is not begun is not measured either, so that a forecast fades, and the stage is tried
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

_WEIGHT = 1 / 8
"""Of the newest time, as in TCP's smoothed round trip (RFC 6298)."""
_FADES_AFTER_S, _HALF_LIFE_S = 0.1, 0.5
"""A forecast nobody has renewed for so long loses half its value in every half-life."""


class Forecast:
    """Smoothed times by stage. For the event loop only.

    Args:
        now: seconds of a clock that does not go back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[Hashable, tuple[float, float]] = {}

    def observe(self, stage: Hashable, seconds: float, *, overran: bool = False) -> None:
        """A stage took so long, waiting for the device included.

        Args:
            overran: nobody waited for its end; it is taken to have come after as long again.
        """
        if overran:
            seconds *= 2
        # From the faded value, and from nothing at first: one slow pass is not the rule.
        before = self.expected_s(stage)
        self._seen[stage] = (before + _WEIGHT * (seconds - before), self._now())

    def expected_s(self, stage: Hashable) -> float:
        """How long the stage will take, seconds; 0 where nothing is known."""
        known = self._seen.get(stage)
        if known is None:
            return 0.0
        seconds, seen_s = known
        stale_s = self._now() - seen_s - _FADES_AFTER_S
        return seconds if stale_s <= 0 else float(seconds * 0.5 ** (stale_s / _HALF_LIFE_S))


def size_class(samples: int) -> int:
    """Batches alike enough to be forecast together: powers of two, at most 16 of them."""
    return min(max(0, samples - 1).bit_length(), 15)
