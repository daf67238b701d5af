"""The demo's model and data: a small CNN on scikit-learn's bundled handwritten digits."""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

MODEL = "digits"
SIDE = 32
"""The 8x8 scans are enlarged to the model's input, as a client that resizes would do."""
EPOCHS = 20
_GRAIN = 1.5 / 255
"""Camera-like grain added to each image; without it an enlarged scan is unnaturally smooth, and
any change at all would be conspicuous."""
_TRAIN, _CALIBRATE = 800, 600
_SEED = 7


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (N, 1, 32, 32) float32 in [0, 1] and labels (N,), in parts that share nothing."""

    train: tuple[Tensor, Tensor]
    calibrate: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load() -> Digits:
    """The bundled digits, shuffled with a fixed seed and split."""
    bundle = load_digits()
    generator = torch.Generator().manual_seed(_SEED)
    x = _enlarge(torch.from_numpy(bundle.images.astype(np.float32) / 16.0).unsqueeze(1), generator)
    y = torch.from_numpy(bundle.target)
    order = torch.randperm(len(x), generator=generator)
    x, y = x[order], y[order]
    ends = (0, _TRAIN, _TRAIN + _CALIBRATE, len(x))
    parts = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(ends)]
    return Digits(parts[0], parts[1], parts[2])


def _enlarge(x: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 1, 8, 8) -> (N, 1, 32, 32), with grain, rounded to 8 bits."""
    large = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    large = large + _GRAIN * torch.randn(large.shape, generator=generator)
    return (large.clamp(0, 1) * 255).round() / 255


def network() -> nn.Module:
    """The untrained CNN, (B, 1, 32, 32) -> (B, 10) logits; about 40,000 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(x: Tensor, y: Tensor, on_epoch: Callable[[], None]) -> nn.Module:
    """Train the CNN; a few seconds on one core."""
    torch.manual_seed(_SEED)
    net = network()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    loss = nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimiser.step()
        on_epoch()
    return net.eval()


def write_repository(net: nn.Module, folder: Path) -> Path:
    """A Triton model repository that serves the network; returns its folder."""
    model = folder / MODEL
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(Path(__file__).parent / "model", model)
    with warnings.catch_warnings():
        # TorchScript is deprecated in favour of torch.export, whose files take seconds to load.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(net, torch.zeros(1, 1, SIDE, SIDE)).save(str(model / "1" / "network.pt"))
    return folder
