"""Detector on the input alone: a small network that knows adversarial from benign residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.base import Detector, DetectorError, Evidence, Need
from purifiers.learned import Learned, Lesson, Recipe

_GAIN = 60.0
"""Residuals are counted in about 1/60 of the range: a change by 4/255 is one unit."""


class ResidualNetwork(nn.Module):
    """Second differences of colours and colour differences, four convolutions, pooled statistics.

    Fully convolutional: mean, deviation and the strongest place of every map over the image, so any
    size of at least 1x1 will do, and a local trace is not lost among clean surroundings.

    Args:
        channels: 3 for colour; each channel by itself otherwise.
        width: maps of the first layers.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        planes = 6 if channels == 3 else channels
        self.first = nn.Conv2d(planes, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.fourth = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(4, n) for n in (width, 2 * width, 2 * width))
        self.head = nn.Linear(6 * width, 1)
        kernel = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
        self.kernel: Tensor
        self.register_buffer("kernel", kernel.view(1, 1, 3, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The log-odds of an attack, (B,) for (B, C, H, W) in [0, 1]."""
        h = F.relu(self.first(self._residuals(x)))
        for layer, norm in zip((self.second, self.third, self.fourth), self.norms, strict=True):
            h = F.relu(norm(layer(h)))
        spread = (h.var((2, 3), correction=0) + 1e-6).sqrt()
        side = min(4, *h.shape[2:])
        strongest = F.avg_pool2d(h, side, max(1, side // 2)).amax((2, 3))
        logit: Tensor = self.head(torch.cat((h.mean((2, 3)), spread, strongest), dim=1))
        return logit.squeeze(1)

    def _residuals(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        planes = _planes(x)
        flat = F.pad(planes.reshape(-1, 1, height, width), (1, 1, 1, 1), mode="replicate")
        residual = F.conv2d(flat, self.kernel).view(batch, -1, height, width) * _GAIN
        # The logarithm keeps weak residuals apart without strong edges drowning them.
        return residual.sign() * residual.abs().log1p()


def _planes(x: Tensor) -> Tensor:
    """Channels, and for colour their differences and mean: attacks move channels apart."""
    if x.shape[1] != 3:
        return x
    red, green, blue = x.unbind(1)
    mixed = (red - green, blue - green, (red + green + blue) / 3)
    return torch.stack((red, green, blue, *mixed), dim=1)


class ResidualRecipe(Recipe):
    """Attacked images of a local copy of the model against benign variations of the same images."""

    name: ClassVar[str] = "residual_cnn"
    guided: ClassVar[bool] = True
    steps: ClassVar[int] = 1500
    rate: ClassVar[float] = 4e-3

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """See `Recipe.build`."""
        return ResidualNetwork(shape[0])

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """Cross-entropy of attacked against varied images, in four mirror images."""
        if lesson.attacked is None:
            raise DetectorError("residual_cnn is trained on attacked images only")
        x = torch.cat((lesson.attacked, lesson.varied))
        axes = [axis for axis in (2, 3) if torch.rand((), generator=generator) < 0.5]
        labels = torch.zeros(len(x), device=x.device)
        labels[: len(lesson.attacked)] = 1
        return F.binary_cross_entropy_with_logits(network(x.flip(axes)), labels)


class ResidualCnn(Learned, Detector):
    """Log-odds of a small network trained on attacked images beside benign variations.

    Sees gradient attacks at 2/255 and more beside benign noise, where every statistic that knows
    no attack is blind, and attacks of the kinds it was trained on (`tuning.attacks`). Attacks of
    other kinds it may well miss, minimal ones (DeepFool) above all: `python -m loadtests.quality`
    measures it with each kind left out of the training.

    Source: Metzen et al., ICLR 2017 (arXiv 1702.04267), on residuals as in image forensics
    (Bayar and Stamm, IH&MMSec 2016). Known adaptive break: Carlini and Wagner, AISec 2017 (arXiv
    1705.07263): the network is differentiable, and an attack that includes it in its loss gets by.
    """

    name: ClassVar[str] = "residual_cnn"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0
    recipe: ClassVar[Recipe] = ResidualRecipe()

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn nothing, but say at once if the weights are missing."""
        self.trained(DetectorError)

    def _score(self, evidence: Evidence) -> Tensor:
        network = self.trained(DetectorError)
        if not len(evidence.x):  # pooling knows no empty batch
            return evidence.x.new_zeros(0)
        scores: Tensor = network(evidence.x)
        return scores
