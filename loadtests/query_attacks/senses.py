"""How an attacker who adapts finds out that it is flagged: by refusals, or by canaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from tuning.evaluate.attempt import Attempt
from tuning.evaluate.oracle import Image, Logits

EVERY = 8
"""Queries between two looks at the canary."""
TOLERANCE = 1e-2
"""Most change of a logit between two answers to one image by one model."""
PATIENCE = 40
"""Queries without progress after which an attacker who is told nothing suspects the answers."""


class Senses(Protocol):
    """Sends queries and says which answers not to build on."""

    @property
    def patience(self) -> float:
        """Queries without progress after which to suspect the answers."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether the last None speaks of that query alone; else also of those before it."""
        ...

    def settle(self) -> bool:
        """Whether every answer so far was an honest one, as far as the attacker can find out."""
        ...

    def ask(self, image: Image) -> Logits | None:
        """The answer, (K,); None where the attacker takes itself to be flagged."""
        ...


class Told:
    """Refusals are seen: a rejection oracle."""

    patience = np.inf
    is_alone = True

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def ask(self, image: Image) -> Logits | None:
        """The answer; None where refused."""
        return self._attempt.ask(image).logits

    def settle(self) -> bool:
        """Always: what was flagged was refused."""
        return True


class Canary:
    """Nothing is told: the same unrelated image is asked now and then, bit for bit.

    While the model itself answers, its answers to one image are equal. When they differ, the
    attacker is being answered otherwise, and so were its queries since the canary was last well.

    Args:
        flee: called when flagged, for instance to become another principal.
    """

    patience = PATIENCE

    def __init__(
        self,
        attempt: Attempt,
        *,
        every: int = EVERY,
        tolerance: float = TOLERANCE,
        flee: Callable[[], None] | None = None,
    ) -> None:
        self._attempt, self._every, self._tolerance, self._flee = attempt, every, tolerance, flee
        self._canary = attempt.target.others[0]
        self._expected = self._sing()
        self._since = 0
        self.is_alone = True

    def _sing(self) -> Logits | None:
        return self._attempt.plain(self._canary).logits

    def ask(self, image: Image) -> Logits | None:
        """The answer; None where it was refused or the canary, when its turn comes, is not well."""
        answer = self._attempt.ask(image)
        self._since += 1
        self.is_alone = answer.is_refused
        if answer.is_refused:
            self._flagged()
        elif self._since < self._every or self.settle():
            return answer.logits
        return None

    def settle(self) -> bool:
        """Whether the canary is well; it is asked unless it has just been."""
        if self._since == 0:
            return True
        self._since = 0
        if self._is_well():
            return True
        self._flagged()
        return False

    def _flagged(self) -> None:
        if self._flee is not None:
            self._flee()

    def _is_well(self) -> bool:
        heard = self._sing()
        if heard is None or self._expected is None:
            return False
        return bool(np.abs(heard - self._expected).max() <= self._tolerance)
