"""Models and defences small enough to know what an attack must make of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuning.evaluate.attempt import Attempt, Bound, Habits, Target
from tuning.evaluate.oracle import Answer, Image, LocalOracle, Oracle

SIDE = 16
LINF = Bound("linf", 8 / 255)
L2 = Bound("l2", 1.0)


def bright(x: Tensor) -> Tensor:
    """Class 1 of three where the mean is over one half; the logits are steep."""
    excess = (x - 0.5).flatten(1).mean(1) * 200
    return torch.stack((-excess, excess, torch.full_like(excess, -50)), dim=1)


BRIGHT = LocalOracle(bright)


def flat(level: float) -> Image:
    """(3, SIDE, SIDE) of one level of 255."""
    return np.full((3, SIDE, SIDE), level / 255, np.float32)


def target(level: float = 126) -> Target:
    """Class 0; `bright` calls it 1 from 127.5 on."""
    return Target(flat(level), 0, np.stack([flat(200), flat(230)]))


def attempt(
    oracle: Oracle = BRIGHT, *, level: float = 126, bound: Bound = LINF, **habits: object
) -> Attempt:
    return Attempt(oracle, BRIGHT, target(level), bound, Habits(**habits))  # type: ignore[arg-type]


class Script:
    """Answers with given labels in turn, None for a refusal; the last one for ever."""

    def __init__(self, labels: Sequence[int | None]) -> None:
        self._labels = list(labels)
        self.asked: list[Image] = []

    def ask(self, image: Image) -> Answer:
        label = self._labels[min(len(self.asked), len(self._labels) - 1)]
        self.asked.append(image.copy())
        return Answer(None if label is None else np.eye(3, dtype=np.float32)[label])


class Memory:
    """Refuses what is nearer than `radius` in L2 to an earlier query, and not its repeat.

    Args:
        lie: answer what is not the model's answer instead, this query and the next few.
    """

    LIES = 10

    def __init__(self, radius: float, *, lie: bool = False) -> None:
        self._radius, self._lie = radius, lie
        self._seen: list[NDArray[np.float32]] = []
        self._lies = 0
        self.refused = 0

    def forget(self) -> None:
        """As if another principal asked."""
        self._seen.clear()
        self._lies = 0

    def ask(self, image: Image) -> Answer:
        apart = [float(np.linalg.norm(image - earlier)) for earlier in self._seen]
        self._seen.append(image.copy())
        hit = any(1e-6 < distance < self._radius for distance in apart)
        self.refused += hit
        if not self._lie:
            return Answer(None) if hit else BRIGHT.ask(image)
        self._lies = self.LIES if hit else max(0, self._lies - 1)
        logits = BRIGHT.ask(image).logits
        assert logits is not None
        return Answer(np.array([20, 0, -50], np.float32) + logits / 100 if self._lies else logits)
