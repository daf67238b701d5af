"""One attack on one image: queries counted, logged, limited and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuning.evaluate.oracle import Answer, Image, LocalOracle, Logits, Oracle

CERTAIN = 100.0
"""Logit of the right class in what an attacker believes of an image it has not asked about."""
GIVE_UP = 25
"""Refusals in a row after which an attacker who does not adapt gives up."""
_SLACK = 1e-5
"""Of a bound, for float32."""

Ended = Literal["won", "budget", "gave up", "finished"]
Blind = Callable[[Image], Image]
"""Changes an image so that the defence does not recognise it, anew at each call."""


class Over(Exception):
    """The attempt has ended; it unwinds the attack's library."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended)
        self.ended = ended


@dataclass(frozen=True)
class Bound:
    """How far an image may be from the one attacked to count as a win."""

    norm: Literal["linf", "l2"]
    size: float
    """Pixels in [0, 1]."""

    def holds(self, image: Image, clean: Image) -> bool:
        """Whether `image` lies within the bound around `clean`."""
        change = (image - clean).astype(np.float64)
        far = np.abs(change).max() if self.norm == "linf" else np.sqrt((change**2).sum())
        return bool(far <= self.size + _SLACK)


@dataclass(frozen=True)
class Target:
    """The image to get misclassified."""

    clean: Image
    label: int
    others: NDArray[np.float32]
    """Images of other classes that the attacker owns, (N, C, H, W)."""


@dataclass(frozen=True)
class Asked:
    """One query, as sent."""

    image: Image
    answer: Answer
    in_bound: bool


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What an attacker does whatever its attack."""

    budget: int = 500
    """Most queries."""
    skip_clean: bool = False
    """Do not send the clean image: its class is known, its margin taken to be large."""
    round8: bool = False
    """Round queries to 8 bits."""
    blind: Blind | None = None
    """Applied to every query. What looks like a win is then sent once as it is."""
    give_up: int = GIVE_UP


class Attempt:
    """What stands between an attack and the oracle.

    `look` is for attacks that know of no refusals; `ask` tells them. A query that the attacker has
    sent before, bit for bit, is not sent again by `look`: it remembers the answer.

    Args:
        oracle: what is asked.
        bare: the model without a defence, the judge of wins; without it, every wrong answer that
            is served within the bound is one.
        classes: how many there are; asked of `bare` where it is there.
        on_asked: called after every query with its number, from 1.
    """

    def __init__(
        self,
        oracle: Oracle,
        bare: LocalOracle | None,
        target: Target,
        bound: Bound,
        habits: Habits,
        on_asked: Callable[[int, Asked], None] | None = None,
        *,
        classes: int = 0,
    ) -> None:
        self.target, self.bound = target, bound
        self.log: list[Asked] = []
        self._oracle, self._bare, self._habits, self._on_asked = oracle, bare, habits, on_asked
        self._known: dict[bytes, Logits] = {}
        self._refused_in_a_row = 0
        self.classes = bare.answers(target.clean[None]).shape[1] if bare else classes
        self._belief = np.zeros(self.classes, np.float32)
        self._belief[target.label] = CERTAIN
        if habits.skip_clean:
            self._known[target.clean.tobytes()] = self._belief

    @property
    def left(self) -> int:
        """Queries left."""
        return self._habits.budget - len(self.log)

    def look(self, image: Image) -> Logits:
        """The answer, (K,); to a refused query the last answer with the original class.

        Raises:
            Over: the budget is spent, the attack has won or too many refusals followed each other.
        """
        image = self._rounded(image)
        key = image.tobytes()
        if key not in self._known:
            self._known[key] = self._heard(self.ask(image))
        return self._known[key]

    def _heard(self, answer: Answer) -> Logits:
        if answer.logits is None:
            self._refused_in_a_row += 1
            if self._refused_in_a_row >= self._habits.give_up:
                raise Over("gave up")
            return self._belief
        self._refused_in_a_row = 0
        if answer.label == self.target.label:
            self._belief = answer.logits
        return answer.logits

    def ask(self, image: Image) -> Answer:
        """Send a query, blinded where that is a habit.

        Raises:
            Over: the budget is spent or the attack has won.
        """
        image = self._rounded(image)
        if self._habits.blind is None:
            return self._send(image)
        answer = self._send(self._rounded(self._habits.blind(image)))
        return self._send(image) if self._looks_won(image, answer) else answer

    def plain(self, image: Image) -> Answer:
        """Send a query as it is, whatever the habits.

        Raises:
            Over: the budget is spent or the attack has won.
        """
        return self._send(image)

    def _rounded(self, image: Image) -> Image:
        image = np.asarray(image, np.float32).reshape(self.target.clean.shape).clip(0, 1)
        return np.round(image * 255).astype(np.float32) / 255 if self._habits.round8 else image

    def _looks_won(self, image: Image, answer: Answer) -> bool:
        wrong = not answer.is_refused and answer.label != self.target.label
        return wrong and self.bound.holds(image, self.target.clean)

    def _send(self, image: Image) -> Answer:
        if self.left <= 0:
            raise Over("budget")
        answer = self._oracle.ask(image)
        in_bound = self.bound.holds(image, self.target.clean)
        asked = Asked(image.copy(), answer, in_bound)
        self.log.append(asked)
        if self._on_asked is not None:
            self._on_asked(len(self.log), asked)
        # An answer that a purifier got wrong is no win: the attacker is not told so and goes on.
        if self._looks_won(image, answer) and self._fools_bare(image):
            raise Over("won")
        return answer

    def _fools_bare(self, image: Image) -> bool:
        if self._bare is None:
            return True
        return int(self._bare.answers(image[None])[0].argmax()) != self.target.label
