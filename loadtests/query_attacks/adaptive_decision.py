"""HopSkipJump that tunes its steps to stay unflagged; see `adaptive` for the idea and sources."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from loadtests.query_attacks.adaptive import Flagged, Sense, Width, drawn
from loadtests.query_attacks.senses import Senses
from tuning.evaluate.attempt import Attempt
from tuning.evaluate.oracle import Image, Logits

HALVINGS = 8
TRIES = 5
"""Flagged draws after which a search along a line goes no further."""


@dataclass(frozen=True)
class AdaptiveHopSkipJump:
    """Boundary search, an estimated direction and a leap; every one of them draws again."""

    sense: Sense
    samples: int = 30
    """In the first estimate; grows with the root of the step's number."""
    radius: float = 0.01
    """Of the samples around the point, as a share of its distance."""

    def __call__(self, attempt: Attempt, seed: int) -> None:
        """Run until `Over`, or until no image of another class is misclassified."""
        search = _Search(attempt, self.sense(attempt), np.random.default_rng(seed))
        sure = point = search.start()
        for step in itertools.count(1):
            try:
                point = search.boundary(point)
                count = round(self.samples * np.sqrt(step))
                direction = search.direction(point, count, self.radius)
                point = search.leap(point, direction, step)
            except Flagged:
                point = sure
                continue
            point = sure = point if search.senses.settle() else sure


class _Search:
    """What the attack does with one attempt; all its widths adapt on their own."""

    def __init__(self, attempt: Attempt, senses: Senses, rng: np.random.Generator) -> None:
        self.senses = senses
        self._clean, self._label = attempt.target.clean, attempt.target.label
        self._others, self._rng = attempt.target.others, rng
        self._near, self._far = Width(most=100), Width(most=4)

    def _is_wrong(self, logits: Logits) -> bool:
        return int(logits.argmax()) != self._label

    def start(self) -> Image:
        """An image of another class that is not taken for the attacked one's."""
        for image in itertools.cycle(self._rng.permutation(self._others)):
            logits = self.senses.ask(image)
            if logits is not None and self._is_wrong(logits):
                return np.asarray(image)
        return self._clean

    def boundary(self, point: Image) -> Image:
        """The nearest misclassified image on the line to the clean one."""
        wrong, right = 1.0, 0.0
        for _ in range(HALVINGS):
            width = Width(most=100)

            def between(wrong: float = wrong, right: float = right, width: Width = width) -> Image:
                # Half way, and anywhere between once that was flagged.
                reach = (1 - 1 / width.value) / 2
                share = right + (wrong - right) * self._rng.uniform(0.5 - reach, 0.5 + reach)
                return self._at(point, share)

            try:
                image, logits = drawn(self.senses, between, width, tries=TRIES)
            except Flagged:
                if self.senses.is_alone:
                    break  # as near as it gets unseen
                raise
            share = self._share(image, point)
            wrong, right = (share, right) if self._is_wrong(logits) else (wrong, share)
        return self._at(point, wrong)

    def _at(self, point: Image, share: float) -> Image:
        return np.asarray(self._clean + share * (point - self._clean), np.float32)

    def _share(self, image: Image, point: Image) -> float:
        way = point - self._clean
        return float((image - self._clean).ravel() @ way.ravel() / (way.ravel() @ way.ravel()))

    def direction(self, point: Image, count: int, radius: float) -> Image:
        """Where images are misclassified, of unit length."""
        reach = radius * np.linalg.norm(point - self._clean)

        def around() -> Image:
            noise = self._rng.standard_normal(point.shape, np.float32)
            noise *= reach * self._near.value / np.linalg.norm(noise)
            return np.asarray((point + noise).clip(0, 1), np.float32)

        pairs = [drawn(self.senses, around, self._near) for _ in range(count)]
        signs = np.array([1.0 if self._is_wrong(logits) else -1.0 for _, logits in pairs])
        weights = signs if abs(signs.mean()) == 1 else signs - signs.mean()
        changes = np.stack([image - point for image, _ in pairs])
        total = np.tensordot(weights, changes, 1)
        return np.asarray(total / max(float(np.linalg.norm(total)), 1e-12), np.float32)

    def leap(self, point: Image, direction: Image, step: int) -> Image:
        """As far that way as the image stays misclassified."""
        length = float(np.linalg.norm(point - self._clean)) / np.sqrt(step)
        for halving in range(HALVINGS):
            size = length / 2**halving

            def along(size: float = size) -> Image:
                chance = self._rng.uniform(1, self._far.value)
                return np.asarray((point + size * chance * direction).clip(0, 1), np.float32)

            try:
                image, logits = drawn(self.senses, along, self._far, tries=TRIES)
            except Flagged:
                if self.senses.is_alone:
                    break
                raise
            if self._is_wrong(logits):
                return image
        return point
