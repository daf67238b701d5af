"""Attackers who tune their steps to stay unflagged: Square, NES and HopSkipJump.

A query that is flagged is drawn again from a wider distribution, so that it lies further from what
was asked before; while nothing is flagged the distribution narrows to the attack's usual one.

Source: the idea is that of Feng, Hooda, Mangaokar, Fawaz, Jha, Prakash, CCS 2023 (arXiv
2303.06280): adapt the proposal distribution, then resample. Compact versions of our own; the
attacks are those of Andriushchenko et al., ECCV 2020 (arXiv 1912.00049), Ilyas et al., ICML 2018
(arXiv 1804.08598) and Chen, Jordan, Wainwright, S&P 2020 (arXiv 1904.02144).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loadtests.query_attacks.senses import Senses
from tuning.evaluate.attempt import Attempt
from tuning.evaluate.oracle import Image, Logits

WIDEN, NARROW = 1.5, 0.95
"""Factors on the width of proposals after a flagged and after an unflagged query."""

Sense = Callable[[Attempt], Senses]


class Flagged(Exception):
    """Every draw was flagged, or answers since the last sure point are not to be built on."""


@dataclass
class Width:
    """A factor on an attack's usual width, adapted after every query."""

    most: float
    value: float = 1.0

    def flagged(self) -> None:
        """Be bolder."""
        self.value = min(self.most, self.value * WIDEN)

    def unflagged(self) -> None:
        """Return towards the usual width."""
        self.value = max(1.0, self.value * NARROW)


def _margin(logits: Logits, label: int) -> float:
    """How far the right class leads; negative where the answer is wrong."""
    return float(logits[label] - np.delete(logits, label).max())


def drawn(
    senses: Senses, draw: Callable[[], Image], width: Width, *, tries: int | None = None
) -> tuple[Image, Logits]:
    """A drawn image and the answer to it; drawn again, wider, as long as it is flagged.

    Raises:
        Flagged: it was `tries` times, or once where earlier answers may be false too.
    """
    for attempt in itertools.count(1):
        image = draw()
        logits = senses.ask(image)
        if logits is not None:
            width.unflagged()
            return image, logits
        width.flagged()
        if not senses.is_alone or attempt == tries:
            break
    raise Flagged


@dataclass(frozen=True)
class AdaptiveSquare:
    """Random search over squares of +-eps; the share of the image redrawn adapts up to all."""

    sense: Sense
    eps: float = 8 / 255

    def __call__(self, attempt: Attempt, seed: int) -> None:
        """Run until `Over`."""
        rng, senses, width = np.random.default_rng(seed), self.sense(attempt), Width(most=1000)
        clean, label = attempt.target.clean, attempt.target.label
        sure = best = (clean, np.inf)
        stale = 0
        for step in itertools.count():
            share = 0.8 / (1 + step / 3)  # of the image; near the published schedule
            try:
                point, logits = drawn(
                    senses,
                    lambda: self._redrawn(rng, clean, best, share * width.value),  # noqa: B023
                    width,
                )
            except Flagged:
                best = sure
                continue
            margin = _margin(logits, label)
            stale += 1
            if margin < best[1]:
                best = sure = (point, margin) if senses.settle() else sure
                stale = 0
            elif stale >= senses.patience:
                width.flagged()
                stale = 0

    def _redrawn(
        self, rng: np.random.Generator, clean: Image, best: tuple[Image, float], share: float
    ) -> Image:
        channels, rows, columns = clean.shape
        steps = np.array([-self.eps, self.eps], np.float32)
        if share >= 1 or np.isinf(best[1]):
            stripes = rng.choice(steps, (channels, 1, columns))
            return np.asarray((clean + stripes).clip(0, 1), np.float32)
        side = max(1, round(np.sqrt(share * rows * columns)))
        top, left = rng.integers(0, max(1, rows - side)), rng.integers(0, max(1, columns - side))
        square = np.s_[:, top : top + side, left : left + side]
        made = best[0].copy()
        made[square] = (clean[square] + rng.choice(steps, (channels, 1, 1))).clip(0, 1)
        return made


@dataclass(frozen=True)
class AdaptiveNes:
    """Sign steps along an estimated gradient; the samples' sigma and the step's length adapt."""

    sense: Sense
    eps: float = 8 / 255
    sigma: float = 0.001
    most_sigma: float = 0.1
    step: float = 2 / 255
    samples: int = 20

    def __call__(self, attempt: Attempt, seed: int) -> None:
        """Run until `Over`."""
        rng, senses = np.random.default_rng(seed), self.sense(attempt)
        sigma = Width(most=self.most_sigma / self.sigma)
        pace = Width(most=2 * self.eps / self.step)
        label = attempt.target.label
        sure = point = attempt.target.clean
        best, best_at = np.inf, attempt.left
        while True:
            try:
                uphill = self._gradient(senses, rng, point, label, sigma)
                point, logits = self._stepped(
                    senses, rng, attempt.target.clean, point, uphill, pace
                )
            except Flagged:
                point = sure
                continue
            point = sure = point if senses.settle() else sure
            if _margin(logits, label) < best:
                best, best_at = _margin(logits, label), attempt.left
            elif best_at - attempt.left >= senses.patience:
                sigma.flagged()
                best_at = attempt.left

    def _gradient(
        self, senses: Senses, rng: np.random.Generator, point: Image, label: int, width: Width
    ) -> Image:
        """Of the margin, from antithetic pairs."""
        total = np.zeros(point.shape, np.float32)
        for _ in range(self.samples // 2):
            above, logits = drawn(senses, lambda: self._near(rng, point, width), width)
            below = (2 * point - above).clip(0, 1)
            opposite = senses.ask(below)
            if opposite is None:  # half a pair is no estimate
                width.flagged()
                if not senses.is_alone:
                    raise Flagged
                continue
            apart = above - below
            rise = _margin(logits, label) - _margin(opposite, label)
            total += rise * apart / max(float((apart**2).mean()), 1e-12)
        return total

    def _near(self, rng: np.random.Generator, point: Image, width: Width) -> Image:
        noise = rng.standard_normal(point.shape, np.float32)
        return (point + self.sigma * width.value * noise).clip(0, 1).astype(np.float32)

    def _stepped(
        self,
        senses: Senses,
        rng: np.random.Generator,
        clean: Image,
        point: Image,
        uphill: Image,
        pace: Width,
    ) -> tuple[Image, Logits]:
        def step() -> Image:
            # The wider, the more of the direction is chance: the longest sign steps all end in
            # the same corner of the bound, and would be flagged again.
            chance = (1 - 1 / pace.value) * np.abs(uphill).mean()
            direction = np.sign(uphill + rng.normal(0, chance, uphill.shape))
            moved = point - self.step * pace.value * direction
            moved = moved.clip(clean - self.eps, clean + self.eps)
            return np.asarray(moved.clip(0, 1), np.float32)

        return drawn(senses, step, pace)
