"""What is sent: photographs at 3x224x224 and CIFAR at 3x32x32, and the small model they go to.

One image in twenty carries impulse noise, which a median takes out and the model sees: it is what
every system must flag. The other nineteen must pass.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loadtests.cifar import load_images
from loadtests.photographs import photographs
from purifiers import BitDepth, Median

CLASSES = 10
CALIBRATION = 192
"""Images Breakwater is calibrated on; `breakwater calibrate` needs 150 for the rate below."""
FPR = 0.05
PASSING = 19
"""Images of the twenty sent that must pass."""
PHOTOGRAPHS = 48
CROPS = 6
_CROP_SCALE = (0.6, 0.95)


class Classifier(nn.Module):
    """One strided convolution, a mean, a linear layer: cheap enough that the defence dominates."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        kernel = torch.randn(8, 3, 5, 5, generator=generator)
        # Without their mean the kernels answer to edges and grain, as first layers do.
        self.kernel = nn.Parameter(kernel - kernel.mean((1, 2, 3), keepdim=True))
        self.linear = nn.Linear(8, CLASSES)
        self.linear.weight.data = torch.randn(CLASSES, 8, generator=generator)
        self.linear.bias.data.zero_()
        logits = self(x).detach()
        self.linear.bias.data = -3 * logits.mean(0) / logits.std(0)
        self.linear.weight.data *= (3 / logits.std(0))[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1], (B, 10), of about unit mean 0 and deviation 3."""
        logits: Tensor = self.linear(F.relu(F.conv2d(x, self.kernel, stride=4)).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Workload:
    """A size of image."""

    name: str
    side: int
    calibration: Tensor
    """(N, 3, side, side) in [0, 1], none of which is sent."""
    sent: Tensor
    """(20, 3, side, side); the last one is to be flagged."""
    network: Classifier
    threshold: float
    """Change of the softmax, L1, between those to pass and the one to be flagged."""

    @property
    def classifier(self) -> str:
        """The model's name in Triton."""
        return f"classifier_{self.name.replace(' ', '').lower()}"

    def write_requests(self, path: Path) -> Path:
        """Write what is sent as perf_analyzer's input file; it takes the images in turn."""
        entries = [
            {"image": {"b64": base64.b64encode(one.tobytes()).decode(), "shape": list(one.shape)}}
            for one in self.sent.numpy()
        ]
        path.write_text(json.dumps({"data": entries}))
        return path


def workloads(data: Path) -> tuple[Workload, Workload]:
    """Both sizes, from a data folder with `cifar10/test.npz` and `photos/`."""
    crops = _crops(photographs(data / "photos", PHOTOGRAPHS))
    small, _ = load_images(data, "test", CALIBRATION + 100)
    return _workload("12 KB", small), _workload("600 KB", crops)


def _workload(name: str, x: Tensor) -> Workload:
    calibration, candidates = x[:CALIBRATION], x[CALIBRATION:]
    network = Classifier(calibration).eval().requires_grad_(False)
    change = changes(network, candidates)
    # The steadiest ones, so that a threshold of whatever calibration lets them all pass.
    kept = candidates[change.argsort()[:PASSING]]
    noisy = _noisy(candidates)
    worst = changes(network, noisy).argmax()
    sent = torch.cat([kept, noisy[worst][None]]).contiguous()
    told = changes(network, sent)
    low, high = float(told[:-1].max()), float(told[-1])
    if not high > 2 * low:
        raise RuntimeError(f"{name}: the noisy image changes by {high:.3f}, others by {low:.3f}")
    return Workload(name, x.shape[-1], calibration, sent, network, (low + high) / 2)


def changes(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Largest change of the softmax under the two squeezers, L1, (B,)."""
    with torch.inference_mode():
        p = network(x).softmax(1)
        views = [BitDepth(bits=5).purify(x), Median(size=3).purify(x)]
        moved = [(p - network(view).softmax(1)).abs().sum(1) for view in views]
        return torch.stack(moved).amax(0)


def _noisy(x: Tensor) -> Tensor:
    """Images with one value in twenty set to 0 or 1."""
    generator = torch.Generator().manual_seed(6)
    hit = torch.rand(x.shape, generator=generator) < 0.05
    ends = (torch.rand(x.shape, generator=generator) < 0.5).float()
    return torch.where(hit, ends, x)


def _crops(x: Tensor) -> Tensor:
    """Resized crops of 8 bits, all first ones before all second ones, (6N, 3, S, S)."""
    rng = np.random.default_rng(7)
    side, found = x.shape[-1], []
    for _ in range(CROPS):
        for image in x:
            size = int(side * rng.uniform(*_CROP_SCALE))
            top, left = rng.integers(0, side - size + 1, 2)
            part = image[None, :, top : top + size, left : left + size]
            found.append(F.interpolate(part, (side, side), mode="bilinear", antialias=True)[0])
    return (torch.stack(found).clamp(0, 1) * 255).round() / 255
