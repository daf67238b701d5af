"""The images of a study: benign groups, benign kinds nobody calibrated on, and attacks."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from detectors.benign import variations
from loadtests import attacks
from loadtests.attacks import ATTACKS
from loadtests.cifar import ResNet, load_images, load_model, quantise
from loadtests.quality.store import Store

_FIRST_ATTACKED = 2000
"""Index of the first test image that is attacked; those before it are benign only."""
TRANSFERRED = ("pgd4", "pgd8", "smooth8")
"""Attacks that are also made on another model than the one that is served."""


@dataclass(frozen=True)
class Sizes:
    """How many images each step uses."""

    train: int
    fit: int
    calibrate: int
    fresh: int
    attack: int
    adaptive: int
    steps: float
    """Share of the recipes' own training steps."""


FULL = Sizes(train=20_000, fit=400, calibrate=800, fresh=500, attack=200, adaptive=32, steps=1.0)
QUICK = Sizes(train=2000, fit=130, calibrate=300, fresh=100, attack=24, adaptive=4, steps=0.05)


@dataclass(frozen=True)
class Labelled:
    """Images, their true labels, and what the attacked ones were made from."""

    x: Tensor
    y: Tensor
    clean: Tensor | None = None


class Images:
    """Everything the detectors and purifiers meet.

    Args:
        data: folder with `cifar10/`.
        sizes: how many of each.
        store: where attacks are kept.
        progress: where to show progress.
    """

    def __init__(self, data: Path, sizes: Sizes, store: Store, progress: Progress) -> None:
        self.model = load_model(data)
        self.peer = load_model(data, 32)
        generator = torch.Generator().manual_seed(1)
        self.train, _ = load_images(data, "train", sizes.train, seed=101)
        x, y = load_images(data, "test", 5000)
        until = sizes.calibrate + sizes.fresh
        fresh = x[sizes.calibrate : until]
        self.fit = variations(self.train[: sizes.fit], generator)
        self.held = variations(x[: sizes.calibrate], generator)
        self.fresh = variations(fresh, generator)
        self.unseen = _unseen(fresh, generator)
        self.labels = y[sizes.calibrate : until]
        self.attacked: dict[str, Labelled] = {}
        self.tried: dict[str, int] = {}
        self.transferred: dict[str, Labelled] = {}
        self.targets = _correct(self.model, x[_FIRST_ATTACKED:], y[_FIRST_ATTACKED:], sizes.attack)
        self._attack(store, progress)

    def _attack(self, store: Store, progress: Progress) -> None:
        x, y = self.targets.x, self.targets.y
        task = progress.add_task("attacking", total=len(ATTACKS) + len(TRANSFERRED))
        for name in ATTACKS:
            made = attacks.cached(store.folder / "attacks", name, self.model, x, y)
            keep = made.fooled
            self.attacked[name] = Labelled(made.x[keep], made.y[keep], made.clean[keep])
            self.tried[name] = len(made.x)
            progress.advance(task)
        for name in TRANSFERRED:
            made = attacks.cached(store.folder / "attacks", name, self.peer, x, y)
            self.transferred[name] = Labelled(made.x, made.y, made.clean)
            progress.advance(task)

    def sets(self) -> dict[str, Tensor]:
        """All of them by role and name, e.g. `fresh/clean` or `attack/pgd2`."""
        roles: dict[str, Mapping[str, Tensor]] = {
            "fit": self.fit,
            "held": self.held,
            "fresh": self.fresh,
            "unseen": self.unseen,
            "attack": {name: each.x for name, each in self.attacked.items()},
            "transfer": {name: each.x for name, each in self.transferred.items()},
        }
        return {f"{role}/{name}": x for role, by in roles.items() for name, x in by.items()}


def _correct(model: ResNet, x: Tensor, y: Tensor, count: int) -> Labelled:
    """The first images the model classifies correctly."""
    x, y = x[: 2 * count], y[: 2 * count]
    with torch.no_grad():
        right = torch.cat([model(part) for part in x.split(100)]).argmax(1) == y
    return Labelled(x[right][:count], y[right][:count])


def _unseen(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Kinds of benign images that no threshold was calibrated on."""

    def drawn(low: float, high: float) -> Tensor:
        share = torch.rand(len(x), generator=generator)
        return (low + (high - low) * share).view(-1, 1, 1, 1)

    grey = x.mean(dim=1, keepdim=True)
    small = F.interpolate(x, size=(24, 24), mode="area")
    return {
        "video_frame": _video(x, generator),
        "gamma": quantise(x.clamp_min(1e-6) ** drawn(0.75, 1.25)),
        "rotation": _rotated(x, drawn(-10, 10).flatten()),
        "webp": torch.stack([_webp(each) for each in x]),
        "saturation": quantise(grey + (x - grey) * drawn(0.6, 1.4)),
        "downscaled": quantise(F.interpolate(small, size=x.shape[2:], mode="bicubic")),
    }


def _video(x: Tensor, generator: torch.Generator) -> Tensor:
    """A moving, zooming window of each image, enlarged by bicubic interpolation."""
    frames = []
    for image in x:
        side = int(torch.randint(22, 30, (1,), generator=generator))
        top, left = torch.randint(0, 33 - side, (2,), generator=generator).tolist()
        window = image[None, :, top : top + side, left : left + side]
        frames.append(F.interpolate(window, size=x.shape[2:], mode="bicubic"))
    return quantise(torch.cat(frames))


def _rotated(x: Tensor, degrees: Tensor) -> Tensor:
    angle = degrees * math.pi / 180
    zero = torch.zeros_like(angle)
    rows = (angle.cos(), -angle.sin(), zero), (angle.sin(), angle.cos(), zero)
    matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return quantise(F.grid_sample(x, grid, padding_mode="border", align_corners=False))


def _webp(image: Tensor) -> Tensor:
    levels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "WEBP", quality=80)
    decoded = np.array(Image.open(file).convert("RGB"))
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255
