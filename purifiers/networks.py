"""Small fully convolutional networks from images to images.

None uses statistics of a batch, so a sample's result does not depend on its batch-mates. Any
height and width will do: images are extended by their edge values to what the network divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Unet(nn.Module):
    """The input plus a learned change; the untrained network is the identity.

    Works at half resolution and below, on 2x2 pixels folded into channels: at full resolution the
    same widths would cost four times as much for no better result on 32x32 images.

    Args:
        channels: of the images.
        widths: feature channels at 1/2, 1/4, ... of the resolution.

    Source: Ronneberger et al., MICCAI 2015 (arXiv 1505.04597); predicting the change, Zhang et
    al., TIP 2017 (arXiv 1608.03981); folding, Shi et al., CVPR 2016 (arXiv 1609.05158).
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.enter = _convolution(4 * channels, widths[0])
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for wide, deep in pairwise(widths):
            self.down.append(_Block(wide, wide, deep))
            self.up.insert(0, _Block(wide + deep, wide, wide))
        self.middle = _Block(widths[-1], widths[-1], widths[-1])
        self.leave = _silent(nn.Conv2d(widths[0], 4 * channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Images like `x`, (B, C, H, W), not clamped."""
        if not len(x):  # resizing refuses empty batches
            return x
        height, width = x.shape[-2:]
        features = self.enter(F.pixel_unshuffle(_scaled(_extended(x, self.multiple)), 2))
        passed = []
        for block in self.down:
            passed.append(features)
            features = F.avg_pool2d(block(features), 2)
        features = self.middle(features)
        for block in self.up:
            larger = F.interpolate(features, scale_factor=2.0)
            features = block(torch.cat((larger, passed.pop()), dim=1))
        change = F.pixel_shuffle(self.leave(features), 2)
        return x + change[..., :height, :width]


class Bottleneck(nn.Module):
    """What is left of an image after a passage too narrow for its fine structure.

    The code holds a coarse copy of the image, reduced 4 times, and `latent` channels of learned
    features at that size. The untrained network returns the coarse copy, enlarged.

    Args:
        channels: of the images.
        width: feature channels at half resolution; twice as many at a quarter.
        latent: learned channels of the code.
    """

    def __init__(self, channels: int, width: int, latent: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            _convolution(4 * channels, width),
            _convolution(width, 2 * width, stride=2),
            _convolution(2 * width, 2 * width),
            nn.Conv2d(2 * width, latent, 3, padding=1),
        )
        self.decode = nn.Sequential(
            _convolution(latent + channels, 2 * width),
            _convolution(2 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            _convolution(2 * width, width),
            _silent(nn.Conv2d(width, 4 * channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images like `x`, (B, C, H, W), not clamped."""
        if not len(x):  # resizing refuses empty batches
            return x
        height, width = x.shape[-2:]
        whole = _extended(x, 4)
        coarse = F.avg_pool2d(whole, 4)
        code = torch.cat((self.encode(F.pixel_unshuffle(_scaled(whole), 2)), coarse), dim=1)
        enlarged = F.interpolate(coarse, scale_factor=4.0, mode="bilinear")
        restored: Tensor = enlarged + F.pixel_shuffle(self.decode(code), 2)
        return restored[..., :height, :width]


class _Block(nn.Sequential):
    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__(_convolution(inputs, inner), _convolution(inner, outputs))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.ReLU())


def _silent(convolution: nn.Conv2d) -> nn.Conv2d:
    """A last layer that says nothing until it has learned."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def _scaled(x: Tensor) -> Tensor:
    """Pixels with a mean near 0 and a variance near 1, which train several times faster."""
    return 4 * (x - 0.5)


def _extended(x: Tensor, multiple: int) -> Tensor:
    """`x` with its last rows and columns repeated up to a multiple of the given size."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
