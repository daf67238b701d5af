"""A small network that imitates the served model, and the features several detectors share."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.answers import floored
from detectors.base import DetectorError, Evidence
from purifiers.learned import Learned, Lesson, Recipe

_WIDTHS = (32, 64, 128)
"""Feature channels of the three stages."""
_WORTH_HALVING, _LARGEST = 28, 32
"""Shorter side in pixels from which the stem halves an image, and that it leaves at most."""
_FEWEST = 20
"""Benign samples to learn from at least."""
_TEMPERATURE = 4.0
"""Of both answers in the loss: at 1 a confident answer says nothing about the other classes."""
_CHUNK = 64
"""Images a pass: the features of 4,000 photographs at once would not fit into memory."""

STAGES = _WIDTHS
"""How the features divide into stages, the coarsest last."""


class SurrogateNetwork(nn.Module):
    """A residual network of three stages for images of any size, (B, C, H, W) in [0, 1].

    Args:
        shape: of one image, (C, H, W).
        classes: K, the answers of the model it imitates.

    Source: He et al., CVPR 2016 (arXiv 1512.03385).
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        narrow, wide, deep = _WIDTHS
        self.stem = _stem(channels, narrow, halvings=_halvings(min(height, width)))
        self.stages = nn.ModuleList(
            (_Block(narrow, narrow, 1), _Block(narrow, wide, 2), _Block(wide, deep, 2))
        )
        self.head = nn.Linear(deep, classes)
        self._last: tuple[weakref.ref[Tensor], int, tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images, (B, K)."""
        return self._look(x)[0]

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and each stage's features averaged over the image, (B, sum(STAGES)).

        The answer to the last `x` is kept while `x` lives and is not written to, so that several
        detectors looking at the same evidence cost one pass: four cost 0.64 ms an image of 32x32
        instead of 1.95, and 2.8 of 224x224 instead of 11.2 (batches of 32, one core). Never where
        gradients are wanted.
        """
        keeps = not torch.is_grad_enabled() and not x.is_inference()
        if keeps and self._last is not None:
            known, version, answer = self._last
            if known() is x and version == x._version:
                return answer
        logits, features = zip(*(self._look(piece) for piece in x.split(_CHUNK)), strict=True)
        answer = (torch.cat(logits), torch.cat(features))
        if keeps:
            self._last = (weakref.ref(x), x._version, answer)
        return answer

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.stem(4 * x - 2)  # pixels of ordinary images: mean about 0, variance about 1
        features = []
        for stage in self.stages:
            y = stage(y)
            features.append(y.mean((2, 3)))
        return self.head(features[-1]), torch.cat(features, dim=1)


class SurrogateRecipe(Recipe):
    """Distils the served model from its own answers; no labels, no copy of the model.

    The network learns to answer a benign variation of each image, shifted at random, as the model
    answered the image itself, both softened by a temperature. Measured after 400 steps on
    CIFAR-10: temperatures of 1 to 4, peak rates of 2e-3 and 6e-3, and the model's choice as a label
    besides, all agree with the model on 57 to 58 % of fresh images. After 2,400 steps, under 4
    minutes of one core, the network agrees on 76 % (79 % of those it learned from): it is limited
    by the steps, so more of them should help where there is time.

    Source: Hinton, Vinyals, Dean, 2015 (arXiv 1503.02531).
    """

    name: ClassVar[str] = "surrogate"
    needs_answers: ClassVar[bool] = True
    whole: ClassVar[bool] = True  # the answers are to whole images
    steps: ClassVar[int] = 2400
    rate: ClassVar[float] = 2e-3

    def build(self, shape: tuple[int, ...], classes: int) -> SurrogateNetwork:
        """See `Recipe.build`.

        Raises:
            DetectorError: fewer than two classes: there is nothing to imitate.
        """
        if classes < 2:
            raise DetectorError(f"a surrogate needs a model with classes, not {classes}")
        return SurrogateNetwork(shape, classes)

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """See `Recipe.loss`."""
        if lesson.answers is None:
            raise DetectorError("a surrogate needs the model's answers")
        answers = floored(lesson.answers)
        logits = network(_moved(lesson.varied, generator))
        softened = F.kl_div(
            (logits / _TEMPERATURE).log_softmax(1),
            (answers / _TEMPERATURE).log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
        # Its gradients shrink with the square of the temperature (Hinton et al., 2.1).
        return _TEMPERATURE**2 * softened


class UsesSurrogate(Learned):
    """What detectors on the surrogate share: its recipe, hence its weights, and its passes."""

    recipe: ClassVar[Recipe] = SurrogateRecipe()

    def read(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
        """The model's answer (B, K), and the surrogate's logits and features.

        Raises:
            DetectorError: there is no network or another, or the answer is missing or has other
                classes.
        """
        network = self.trained(DetectorError)
        if not isinstance(network, SurrogateNetwork):
            raise DetectorError(f"{self.name} was given a network that is not a surrogate")
        if evidence.output is None:
            raise DetectorError(f"{self.name} needs the model's output")
        logits, features = network.read(evidence.x)
        if logits.shape != evidence.output.shape:
            raise DetectorError(
                f"{self.name}: the weights are for {logits.shape[1]} classes, the model's answer "
                f"is {tuple(evidence.output.shape)}; fit again"
            )
        return evidence.output, logits, features

    def learn(self, benign: Mapping[str, Evidence]) -> tuple[Tensor, Tensor]:
        """Features of all groups, (N, sum(STAGES)), and the model's answers to them, (N, K).

        Raises:
            DetectorError: as `read`, or fewer than 20 samples, or a value that is not finite.
        """
        with torch.inference_mode():
            read = [self.read(evidence) for evidence in benign.values()]
            answers = torch.cat([answer for answer, _, _ in read])
            features = torch.cat([features for _, _, features in read])
            known = torch.isfinite(features).all() and torch.isfinite(floored(answers)).all()
        if len(features) < _FEWEST or not known:
            raise DetectorError(f"{self.name}: needs {_FEWEST} benign samples, all finite")
        return features, answers


def _moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to a sixteenth of its side, edges repeated."""
    count, _, height, width = x.shape
    samples = torch.arange(count, device=x.device)[:, None, None]
    rows, columns = (_moved_places(count, side, generator).to(x.device) for side in (height, width))
    moved = x[samples, :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    # Left as it lies in memory, channels last: training colour images is then 1.2-1.4 times faster.
    return moved.permute(0, 3, 1, 2)


def _moved_places(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Where each place along one axis comes from, (count, side)."""
    most = side // 16
    moves = torch.randint(-most, most + 1, (count, 1), generator=generator)
    return (torch.arange(side) + moves).clamp(0, side - 1)


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first has the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride)
        self.second = _convolution(outputs, outputs, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        return F.relu(y + self.shortcut(x))


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
    )


def _stem(channels: int, outputs: int, halvings: int) -> nn.Sequential:
    """From pixels to the first stage; thin while the image is large."""
    thin = [max(8, outputs >> (halvings - i)) for i in range(1, halvings)]
    widths = [channels, *thin, outputs]
    stem = nn.Sequential()
    for before, after in itertools.pairwise(widths):
        stem.extend((_convolution(before, after, 2 if halvings else 1), nn.ReLU()))
    return stem


def _halvings(side: int) -> int:
    """How often the stem halves an image: to 16 of 32 pixels, 14 of 28 and 28 of 224.

    At full resolution 32 pixels would cost four times as much; photographs keep more, as they
    show more.
    """
    return max(int(side >= _WORTH_HALVING), math.ceil(math.log2(side / _LARGEST)))
