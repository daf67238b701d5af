"""CIFAR-10 images and the small residual network the quality figures are measured with.

The images were JPEG-compressed once. A detector could win by noticing the broken JPEG grid of an
attacked copy, so every image is resampled (`_resample`) before anything else sees it.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class _Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.extra:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """CIFAR ResNet of 6n+2 layers on pixels in [0, 1]; returns logits, (B, 10)."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks)
        self.layer2 = self._stage(16, 32, 2, blocks)
        self.layer3 = self._stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, 10)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
        first = _Block(inputs, outputs, stride)
        return nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        x = (x - self.mean) / self.std
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def load_model(folder: Path, layers: int = 20) -> ResNet:
    """A frozen ResNet of `folder/cifar10`, 20 or 32 layers deep, in evaluation mode."""
    model = ResNet((layers - 2) // 6)
    file = folder / "cifar10" / f"resnet{layers}.pt"
    model.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
    return model.eval().requires_grad_(False)


def load_images(folder: Path, split: str, count: int, seed: int = 100) -> tuple[Tensor, Tensor]:
    """The first `count` images of a split, resampled: (N, 3, 32, 32) float32 and labels (N,)."""
    with np.load(folder / "cifar10" / f"{split}.npz") as data:
        jpeg, offset, label = data["jpeg"], data["offset"], data["label"][:count]
    files = (jpeg[offset[i] : offset[i + 1]].tobytes() for i in range(len(label)))
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return _resample(x, seed), torch.from_numpy(label.astype(np.int64))


def _resample(x: Tensor, seed: int) -> Tensor:
    """Break the JPEG grid: sub-pixel bilinear shift, dither of sigma 0.75/255, 8-bit rounding."""
    generator = torch.Generator().manual_seed(seed)
    count = x.shape[0]
    dx, dy = torch.rand(2, count, 1, 1, 1, generator=generator)
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    rows = padded[:, :, :-1] * (1 - dy) + padded[:, :, 1:] * dy  # (N, 3, H, W+1)
    shifted = rows[..., :-1] * (1 - dx) + rows[..., 1:] * dx  # (N, 3, H, W)
    dither = torch.randn(x.shape, generator=generator) * (0.75 / 255)
    return quantise(shifted + dither)


def quantise(x: Tensor) -> Tensor:
    """Round to what 8 bits can hold, in [0, 1]: an attack must survive being an image file."""
    return (x.clamp(0, 1) * 255).round() / 255
