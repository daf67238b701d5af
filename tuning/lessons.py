"""What networks are trained on: batches that depend on nothing but the seed and their number.

So a training that was interrupted goes on with the very batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from detectors import benign
from purifiers.learned import Lesson, Recipe
from tuning.attacked_images import Attacked
from tuning.batches import CROP, seeded, window
from tuning.local_model import LogitModel


@dataclass(frozen=True, slots=True)
class Material:
    """All there is to learn from, on the CPU."""

    x: Tensor
    """Benign samples, (N, C, H, W) float32 in [0, 1]."""
    answers: Tensor | None = None
    """The served model's to each, (N, K)."""
    attacked: Attacked | None = None
    """For guided recipes, which are then trained on these and the images they come from."""
    model: LogitModel | None = None
    """The local copy, for guided recipes."""


Course = Callable[[int], Lesson]
"""Number of the step -> its batch."""


def course(
    recipe: Recipe, material: Material, batch: int, seed: int, device: torch.device
) -> Course:
    """The batches of one recipe, on the device."""
    attacked = material.attacked if recipe.guided else None
    of = torch.arange(len(material.x)) if attacked is None else attacked.of
    shape = tuple(material.x.shape[1:])
    is_cut = window(recipe, shape) != shape

    def lesson(step: int) -> Lesson:
        generator = seeded(seed, recipe.name, "lesson", step)
        drawn = torch.randperm(len(of), generator=generator)[:batch]
        rows = of[drawn]
        x = material.x[rows]
        hostile = None if attacked is None else attacked.at(drawn)
        if is_cut:
            corners = _corners(len(x), shape, generator)
            x = _cut(x, corners)
            hostile = None if hostile is None else _cut(hostile, corners)
        varied = benign.one_each(x, generator) if x.ndim == 4 else x
        answers = material.answers if recipe.needs_answers else None
        return Lesson(
            x=x.to(device),
            varied=varied.to(device),
            answers=None if answers is None else answers[rows].to(device),
            attacked=None if hostile is None else hostile.to(device),
            model=material.model if recipe.guided and not is_cut else None,
        )

    return lesson


def _corners(count: int, shape: tuple[int, ...], generator: torch.Generator) -> list[list[int]]:
    """Upper left corners of crops, (N, 2)."""
    free = [side - min(side, CROP) + 1 for side in shape[1:]]
    drawn = [torch.randint(room, (count,), generator=generator) for room in free]
    corners: list[list[int]] = torch.stack(drawn, dim=1).tolist()
    return corners


def _cut(x: Tensor, corners: list[list[int]]) -> Tensor:
    crops = zip(x, corners, strict=True)
    return torch.stack(
        [image[:, top : top + CROP, left : left + CROP] for image, (top, left) in crops]
    )
