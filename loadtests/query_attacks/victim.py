"""The model under attack, the images attacked, and what Triton needs to serve it."""

from __future__ import annotations

import functools
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from loadtests.cifar import load_images, load_model
from loadtests.harness import CHECKOUT
from tuning.evaluate.attempt import Target
from tuning.evaluate.oracle import LocalOracle

CALIBRATION = 1200
"""The first test images."""
FIRST_ATTACKED = 2000
"""Of the test images."""
TEST, TRAIN = 5_000, 20_000
"""How many there are. Every image's resampling depends on how many are loaded."""
ORDINARY = slice(0, 14_000)
"""Train images that benign clients send."""
OWNED = slice(14_000, TRAIN)
"""Train images that attackers own."""
OTHERS = 5
"""Images of other classes that each attacker owns; nobody else has them."""

_SERVED = CHECKOUT / "tuning" / "demo" / "model"
"""Runs any TorchScript network in Triton's Python backend, with one thread."""


@dataclass(frozen=True)
class Victim:
    """A classifier of images and the images to calibrate, to attack and to send."""

    name: str
    """In Triton."""
    network: nn.Module
    """(B, C, H, W) in [0, 1] -> logits (B, K)."""
    calibration: Tensor
    """(N, C, H, W), as are all images here."""
    attacked: tuple[Tensor, Tensor]
    """Images and labels (N,)."""
    owned: tuple[Tensor, Tensor]
    """What attackers own, images and labels."""
    ordinary: Tensor
    """What others send."""

    @functools.cached_property
    def traced(self) -> torch.jit.ScriptModule:
        """The network as TorchScript."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in tuning.demo.digits
            made: torch.jit.ScriptModule = torch.jit.trace(self.network, self.calibration[:1])
        return made

    @property
    def bare(self) -> LocalOracle:
        """What Triton serves, in this process: it judges wins, and is attacked undefended."""
        return LocalOracle(self.traced)

    def targets(self, first: int = 0) -> Iterator[Target]:
        """Images that the model gets right, from a place on, each with others of its attacker's.

        No image comes twice, neither as the one attacked nor as one of the others.
        """
        x, labels = _right(self.network, *(part[first:] for part in self.attacked))
        own_x, own_labels = self.owned
        free = torch.ones(len(own_labels), dtype=torch.bool)
        for image, label in zip(x, labels.tolist(), strict=True):
            chosen = (free & (own_labels != label)).nonzero()[:OTHERS, 0]
            free[chosen] = False
            yield Target(image.numpy(), label, own_x[chosen].numpy())

    def write_repository(self, folder: Path) -> Path:
        """A Triton model repository that serves it; returns its folder."""
        model = folder / self.name
        shutil.copytree(_SERVED, model)
        shape = self.calibration.shape[1:]
        (model / "config.pbtxt").write_text(
            f'name: "{self.name}"\nbackend: "python"\nmax_batch_size: 64\n'
            f'input [{{ name: "image" data_type: TYPE_FP32 dims: {list(shape)} }}]\n'
            'output [{ name: "logits" data_type: TYPE_FP32 dims: [10] }]\n'
            "instance_group [{ count: 1 kind: KIND_CPU }]\n"
        )
        self.traced.save(str(model / "1" / "network.pt"))
        return folder


def _right(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the images that the network classifies correctly."""
    if not len(x):
        return x, labels
    with torch.inference_mode():
        said = torch.cat([network(part).argmax(1) for part in x.split(256)])
    return x[said == labels], labels[said == labels]


def cifar(folder: Path) -> Victim:
    """ResNet-20 on CIFAR-10, of a data folder as in `loadtests.cifar`."""
    network = load_model(folder)
    x, labels = load_images(folder, "test", TEST)
    train_x, train_labels = load_images(folder, "train", TRAIN)
    return Victim(
        name="resnet20",
        network=network,
        calibration=x[:CALIBRATION],
        attacked=(x[FIRST_ATTACKED:], labels[FIRST_ATTACKED:]),
        owned=(train_x[OWNED], train_labels[OWNED]),
        ordinary=train_x[ORDINARY],
    )
