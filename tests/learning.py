"""Small parts with networks to train, and a local copy of the model `digits_like`."""

from __future__ import annotations

import math
import os
import signal
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from detectors import Detector, Evidence, Need
from purifiers import Purifier
from purifiers.base import PurifierError
from purifiers.learned import Learned, Lesson, Recipe


class SmoothRecipe(Recipe):
    """Learns the inputs from their variations with one convolution."""

    name: ClassVar[str] = "smooth"
    steps: ClassVar[int] = 12
    batch: ClassVar[int] = 16
    rate: ClassVar[float] = 1e-2
    interrupt_at: ClassVar[int | None] = None
    """Ctrl-C comes during this call."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        convolution = nn.Conv2d(shape[0], shape[0], 3, padding=1)
        return nn.Sequential(nn.Dropout(0.1), convolution)

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        self.count()
        noise = 0.01 * torch.randn(lesson.x.shape, generator=generator).to(lesson.x.device)
        loss: Tensor = (network(lesson.varied + noise) - lesson.x).square().mean()
        return loss


class AnswerRecipe(Recipe):
    """Learns the model's answers."""

    name: ClassVar[str] = "answer"
    needs_answers: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    steps: ClassVar[int] = 5

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        assert lesson.answers is not None
        loss: Tensor = (network(lesson.x) - lesson.answers).square().mean()
        return loss


class RepairRecipe(SmoothRecipe):
    """Learns to restore the model's answers to attacked inputs."""

    name: ClassVar[str] = "repair"
    guided: ClassVar[bool] = True

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        self.count()
        assert lesson.attacked is not None
        assert lesson.model is not None
        change: Tensor = lesson.model(network(lesson.attacked)) - lesson.model(lesson.x)
        return change.abs().mean()


class Smooth(Learned, Purifier):
    """A purifier that needs no copy of the model."""

    name: ClassVar[str] = "smooth"
    recipe: ClassVar[Recipe] = SmoothRecipe()

    @property
    def key(self) -> str:
        return self.name

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        purified: Tensor = self.trained(PurifierError)(x)
        return purified


class Repair(Smooth):
    """A guided purifier."""

    name: ClassVar[str] = "repair"
    recipe: ClassVar[Recipe] = RepairRecipe()


class Roughness(Learned, Detector):
    """A detector with the network of `Smooth`."""

    name: ClassVar[str] = "roughness"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0
    recipe: ClassVar[Recipe] = Smooth.recipe

    def _score(self, evidence: Evidence) -> Tensor:
        return (self.trained(ValueError)(evidence.x) - evidence.x).flatten(1).norm(dim=1)


class DigitsLike(nn.Module):
    """What tests/models/digits_like computes."""

    def __init__(self) -> None:
        super().__init__()
        weights = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4")
        self.weights = nn.Parameter(torch.from_numpy(weights))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weights


def export(model: nn.Module, path: Path, shape: tuple[int, ...] = (3, 32, 32)) -> Path:
    """Write a model file of the kind its ending says, for batches of any size."""
    example = torch.zeros(2, *shape)
    if path.suffix == ".pt2":
        axes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(model.eval(), (example,), dynamic_shapes=axes), path)
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(model.eval(), example).save(str(path))
    return path
