"""Whether requests to a model are sent on before their verdict: while little of it is in vain."""

from __future__ import annotations

import time
from collections.abc import Callable

MEMORY = 500
"""Requests that the share is an average over, exponentially weighted."""
LEAST = 50
"""Requests seen before a change, so that no single one decides."""
DWELL_S = 10.0
"""Least time asked in sequence, seconds."""
RETURN_AT = 0.5
"""Share of `max_waste` under which a model is asked at once again."""


class Governor:
    """Chooses between speculative and sequential dispatch for one model.

    What it counts are needless calls: those whose answer is void (the request was blocked,
    purified or refused) and was not evidence either. Sequential dispatch would have spared exactly
    these, and the verdicts tell what they would have been while it is in force.

    Somebody who floods a model with requests that are flagged can thereby make everybody's be asked
    in sequence, which costs each of them the time of scoring; without the governor the flood would
    cost the model as many calls in vain.

    Args:
        max_waste: share of needless calls, (0, 1], above which requests wait for their verdict.
        clock: seconds that only go forward.
    """

    def __init__(self, max_waste: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_waste = max_waste
        self._clock = clock
        self._seen = 0
        self._changed_s = clock()
        self.is_speculative = True
        """Whether the next request may be sent on before its verdict."""
        self.share = 0.0
        """Share of needless calls lately, 0 to 1: those made, or those that were spared."""

    def observe(self, *, needless: bool) -> bool:
        """Take in one request's end; whether that has changed the dispatch."""
        self.share += (needless - self.share) / MEMORY
        self._seen += 1
        if self._seen < LEAST or self.is_speculative is not self._is_dear:
            return False
        now = self._clock()
        if not self.is_speculative and now - self._changed_s < DWELL_S:
            return False
        self.is_speculative = not self.is_speculative
        self._seen, self._changed_s = 0, now
        return True

    @property
    def _is_dear(self) -> bool:
        """Whether waste is over the bound in force; another one each way, so as not to flutter."""
        bound = self._max_waste * (1.0 if self.is_speculative else RETURN_AT)
        return self.share > bound
