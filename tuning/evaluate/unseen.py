"""Benign images that a calibration has not seen: other changes, and other things than it knows."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from detectors.benign import rounded


def unseen(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Kinds of benign images that no threshold was calibrated on: name -> as many images as `x`.

    Args:
        x: clean images, (N, C, H, W) float32 in [0, 1], C 1 or 3.
        generator: source of all choices, on the CPU.
    """

    def drawn(low: float, high: float) -> Tensor:
        share = torch.rand(len(x), generator=generator)
        return (low + (high - low) * share).view(-1, 1, 1, 1)

    sides = [round(0.75 * side) for side in x.shape[2:]]
    small = F.interpolate(x, size=sides, mode="area")
    kinds = {
        "video_frame": _video(x, generator),
        "gamma": rounded(x.clamp_min(1e-6) ** drawn(0.75, 1.25)),
        "rotation": _rotated(x, drawn(-10, 10).flatten()),
        "webp": torch.stack([_webp(each) for each in x]),
        "downscaled": rounded(F.interpolate(small, size=x.shape[2:], mode="bicubic")),
    }
    if x.shape[1] == 3:
        grey = x.mean(dim=1, keepdim=True)
        kinds["saturation"] = rounded(grey + (x - grey) * drawn(0.6, 1.4))
    return kinds


def _video(x: Tensor, generator: torch.Generator) -> Tensor:
    """A moving, zooming window of each image, enlarged by bicubic interpolation."""
    frames = []
    height, width = x.shape[2:]
    least, most = (round(share * min(height, width)) for share in (22 / 32, 30 / 32))
    for image in x:
        side = int(torch.randint(least, most, (1,), generator=generator))
        free = torch.tensor([height - side + 1, width - side + 1])
        top, left = (int(each) for each in torch.rand(2, generator=generator) * free)
        window = image[None, :, top : top + side, left : left + side]
        frames.append(F.interpolate(window, size=x.shape[2:], mode="bicubic"))
    return rounded(torch.cat(frames))


def _rotated(x: Tensor, degrees: Tensor) -> Tensor:
    angle = degrees * math.pi / 180
    zero = torch.zeros_like(angle)
    rows = (angle.cos(), -angle.sin(), zero), (angle.sin(), angle.cos(), zero)
    matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return rounded(F.grid_sample(x, grid, padding_mode="border", align_corners=False))


def _webp(image: Tensor) -> Tensor:
    """As WebP of quality 80 leaves it; a grey one goes through three equal channels."""
    levels = (image.expand(3, -1, -1).permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "WEBP", quality=80)
    decoded = np.array(Image.open(file).convert("RGB"))
    pixels = torch.from_numpy(decoded).permute(2, 0, 1).float() / 255
    return pixels if len(image) == 3 else pixels[1:2]


def out_of_distribution(x: Tensor, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Images of no class, of the size of `x`: name -> (count, C, H, W), rounded to 8 bits.

    Nobody attacks with them; whether they should be flagged is the operator's question, so they
    are reported apart from benign images.
    """
    shape = (count, *x.shape[1:])
    return {
        "dead_leaves": _dead_leaves(shape, generator),
        "texture": _texture(shape, generator),
        "gradient": _gradient(shape, generator),
        "inverted": rounded(1 - x[:count]),
    }


def _dead_leaves(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Discs of all sizes and colours that hide one another.

    Source: Lee, Mumford, Huang, IJCV 41 (2001): radii by an inverse cube law have the scale
    invariance of natural images.
    """
    channels, height, width = shape[1:]
    rows, columns = torch.arange(height).view(-1, 1), torch.arange(width)
    least, most = 0.04 * min(height, width), 0.5 * min(height, width)
    x = torch.zeros(shape)
    for image in x:
        image[:] = torch.rand(channels, 1, 1, generator=generator)
        for _ in range(120):
            share, top, left = torch.rand(3, generator=generator).tolist()
            radius = (least**-2 + share * (most**-2 - least**-2)) ** -0.5
            far = (rows - top * height) ** 2 + (columns - left * width) ** 2
            colour = torch.rand(channels, 1, generator=generator)
            image[:, far < radius**2] = colour
    return rounded(x)


def _texture(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random phases under the 1/f amplitudes of natural images (Field, JOSA A 4, 1987)."""
    noise = torch.fft.rfft2(torch.randn(shape, generator=generator))
    across = torch.fft.rfftfreq(shape[3])
    far = (torch.fft.fftfreq(shape[2]).view(-1, 1) ** 2 + across**2).sqrt()
    waves = torch.fft.irfft2(noise / far.clamp_min(1 / max(shape[2:])), s=shape[2:])
    flat = waves.flatten(2)
    low, high = (each(2).view(*shape[:2], 1, 1) for each in (flat.amin, flat.amax))
    return rounded((waves - low) / (high - low))


def _gradient(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """From one colour to another in a random direction, without any noise."""
    count, channels, height, width = shape
    angle = torch.rand(count, 1, 1, 1, generator=generator) * 2 * math.pi
    rows, columns = torch.linspace(-1, 1, height).view(-1, 1), torch.linspace(-1, 1, width)
    share = 0.5 + (angle.cos() * rows + angle.sin() * columns) / (2 * math.sqrt(2))
    first, far = torch.rand(2, count, channels, 1, 1, generator=generator)
    last = (first + 0.25 + 0.5 * far) % 1  # no channel is nearly flat
    return rounded(first + share * (last - first))
