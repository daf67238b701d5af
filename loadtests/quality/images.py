"""The images of a study: benign groups, benign kinds nobody calibrated on, and attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from detectors.benign import variations
from loadtests.cifar import ResNet, load_images, load_model
from tuning.evaluate import attacks
from tuning.evaluate.attacks import ATTACKS
from tuning.evaluate.store import Store
from tuning.evaluate.unseen import unseen

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
        self.unseen = unseen(fresh, generator)
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
            made = attacks.cached(store, name, self.model, x, y)
            keep = made.fooled
            self.attacked[name] = Labelled(made.x[keep], made.y[keep], made.clean[keep])
            self.tried[name] = len(made.x)
            progress.advance(task)
        for name in TRANSFERRED:
            made = attacks.cached(store, name, self.peer, x, y)
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
