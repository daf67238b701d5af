"""A surrogate that reads its logits and features off the image, for numbers worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors import Evidence
from detectors.surrogate_network import STAGES, SurrogateNetwork

WIDTH = sum(STAGES)


class Told(SurrogateNetwork):
    """Answers with the first `classes` pixels, and has the rest as features."""

    def __init__(self, classes: int) -> None:
        super().__init__((1, 1, classes + WIDTH), classes)
        self.classes = classes

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        told = x.flatten(1)
        return told[:, : self.classes], told[:, self.classes :]


def telling(output: Tensor, logits: Tensor, features: Tensor | None = None) -> Evidence:
    """Evidence with the model's answer, the surrogate's, and its features (0 where missing)."""
    if features is None:
        features = torch.zeros(len(output), WIDTH)
    return Evidence(torch.cat((logits, features), dim=1)[:, None, None], output)


def clouds(classes: int, each: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Features around a centre for each class, (N, WIDTH), and confident answers, (N, K)."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, WIDTH, generator=torch.Generator().manual_seed(99))
    of = torch.arange(classes).repeat_interleave(each)
    features = centres[of] + spread * torch.randn(len(of), WIDTH, generator=generator)
    return features, 5 * torch.nn.functional.one_hot(of, classes).float()
