"""How attacks are run: by the Adversarial Robustness Toolbox, by Foolbox, or by a loop of our own.

Foolbox where the toolbox goes image by image. `Smooth` is ours: no library has a low-frequency PGD,
and a suite without one flatters every input-only detector.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 100


class Run(Protocol):
    """An attack with all its parameters, which its `repr` shows: it is part of the cache's key."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """Attacked images, before rounding to 8 bits.

        Args:
            model: images in [0, 1] -> logits.
            x: (N, C, H, W) in [0, 1].
            y: true labels, (N,).
        """
        ...


def _classifier(model: nn.Module, x: Tensor) -> Any:
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


@dataclass(frozen=True)
class Toolbox:
    """An attack of the Adversarial Robustness Toolbox."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, seed: int, **given: Any) -> Tensor:
        """Attacked images; `given` goes to the toolbox's `generate`."""
        from art.attacks import evasion

        np.random.seed(seed)  # noqa: NPY002 (the toolbox draws from the global generators)
        torch.manual_seed(seed)
        attack = getattr(evasion, self.name)(_classifier(model, x), **self.params)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy(), **given))


@dataclass(frozen=True)
class Foolbox:
    """An attack of Foolbox."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """Attacked images."""
        with warnings.catch_warnings():
            # Its import uses names that SciPy calls old.
            warnings.simplefilter("ignore", DeprecationWarning)
            foolbox: Any = importlib.import_module("foolbox")

        torch.manual_seed(seed)
        seen = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        attack = getattr(foolbox.attacks, self.name)(**self.params)
        parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
        return torch.cat([attack.run(seen, part, labels) for part, labels in parts])


def pgd(eps: float, steps: int) -> Toolbox:
    """PGD in the L-infinity ball, a random start and sign steps of 2.5 eps / steps."""
    params = {
        "eps": eps,
        "eps_step": 2.5 * eps / steps,
        "max_iter": steps,
        "num_random_init": 1,
        "batch_size": BATCH,
        "verbose": False,
    }
    return Toolbox("ProjectedGradientDescentPyTorch", params)


@dataclass(frozen=True)
class HopSkipJump:
    """HopSkipJump in L2 from starting points of our own: the toolbox draws its own unseeded."""

    params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """Attacked images."""
        start = starts(model, x, y, seed).numpy()
        toolbox = Toolbox("HopSkipJump", {"norm": 2, "verbose": False, **self.params})
        return toolbox(model, x, y, seed, x_adv_init=start)


def starts(model: nn.Module, x: Tensor, y: Tensor, seed: int, tries: int = 20) -> Tensor:
    """Misclassified images to start from: uniform noise, or else one of the other images of `x`."""
    generator = torch.Generator().manual_seed(seed)
    start = x.clone()
    for attempt in range(tries + len(x)):
        with torch.no_grad():
            left = model(start).argmax(1) == y
        if not left.any():
            break
        noise = torch.rand(x.shape, generator=generator)
        start[left] = (noise if attempt < tries else x.roll(attempt - tries, 0))[left]
    return start


@dataclass(frozen=True)
class Patch:
    """PGD without a bound on a square at a random place of each image."""

    side: int
    steps: int = 60

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """Attacked images; nothing outside the square is changed."""
        mask = squares(x, self.side, seed).expand_as(x)
        return pgd(1.0, self.steps)(model, x, y, seed, mask=mask.numpy())


def squares(x: Tensor, side: int, seed: int) -> Tensor:
    """One square of ones at a random place of each image, (N, 1, H, W) float32."""
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = x.shape
    top = torch.randint(0, height - side + 1, (count, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (count, 1), generator=generator)
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top) & (rows < top + side)  # (N, H)
    in_columns = (columns >= left) & (columns < left + side)  # (N, W)
    return (in_rows[:, :, None] & in_columns[:, None, :]).float().unsqueeze(1)


@dataclass(frozen=True)
class Smooth:
    """PGD whose perturbation is a bilinearly enlarged coarse grid, so it has no fine texture."""

    eps: float
    """L-infinity bound."""
    steps: int = 30
    """Sign steps of 2.5 eps / steps."""
    side: int = 12
    """Of the coarse grid: 12 of 32 keeps the lower third of frequencies."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """Attacked images; the seed is not used, it starts at the image itself."""
        parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
        return torch.cat([self._batch(model, part, labels) for part, labels in parts])

    def _batch(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        grid = torch.zeros(*x.shape[:2], self.side, self.side, requires_grad=True)
        for _ in range(self.steps):
            loss = F.cross_entropy(model(_enlarged(x, grid)), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, grid)
            with torch.no_grad():
                grid += 2.5 * self.eps / self.steps * gradient.sign()
                grid.clamp_(-self.eps, self.eps)
        return _enlarged(x, grid).detach()


def _enlarged(x: Tensor, grid: Tensor) -> Tensor:
    delta = F.interpolate(grid, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return (x + delta).clamp(0, 1)
