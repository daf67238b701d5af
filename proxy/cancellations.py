"""How many calls to Triton may be cancelled: storms of cancellations have crashed it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Cancellations:
    """Grants cancellations at a rate, with bursts of one second's worth (a token bucket).

    Args:
        per_second: the rate in force, read each time; 0 grants none.
        clock: seconds that only go forward.
    """

    def __init__(
        self, per_second: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._clock = clock
        self._tokens = max(1.0, per_second())
        self._at_s = clock()

    def grant(self) -> bool:
        """Whether one more call may be cancelled now; takes a token if so."""
        rate, now = self._per_second(), self._clock()
        self._tokens = min(max(1.0, rate), self._tokens + (now - self._at_s) * rate)
        self._at_s = now
        if rate <= 0 or self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
