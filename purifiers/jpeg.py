"""JPEG purification: 8x8 DCT quantisation batched on the device, or libjpeg on the CPU."""

from __future__ import annotations

import io
import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from purifiers.base import Purifier, PurifierError

# ITU-T T.81 (JPEG), Annex K.1: the example tables libjpeg uses.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# JFIF 1.02: full-range YCbCr of ITU-R BT.601.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
_TIE = 1 + 1e-4
"""Quantised values are stretched by this much before rounding: exact halves, which flat areas
produce, then go away from zero as in libjpeg whatever the last bit of the matrix product, so a
sample's result does not depend on its batch."""
_LIBJPEG_PIXELS = 192 * 192
"""Images of at least this many pixels go through libjpeg on the CPU. Milliseconds of CPU an image,
batched DCT / libjpeg, quality 75, one thread, best of many, the two in turn (Xeon, 2 cores, torch
2.13, Pillow 13):

    side     batch 1         batch 32
    32       0.18 / 0.21     0.03 / 0.14
    64       0.24 / 0.25     0.22 / 0.20
    128      0.47 / 0.48     0.55 / 0.44
    224      1.15 / 0.98     2.09 / 1.14
    384      -               10.4 / 4.9

The rule looks at the image alone, so that a sample's result does not depend on its batch; 64 to 160
pixels are left to the DCT, whose result a GPU gives too."""
_LIBJPEG_SIDE = 65500
"""The longest side libjpeg codes (JPEG_MAX_DIMENSION)."""


class Jpeg(Purifier):
    """What JPEG compression and decompression would leave of each image.

    Three channels are coded as YCbCr, other channel counts as luma each. Heights and widths that
    are not multiples of the block are extended by their edge values. Not idempotent in general,
    like JPEG itself.

    Large images on the CPU are coded by libjpeg, which rounds to 8 bits before and after; small
    ones, all on a GPU, and all whose gradients are wanted by the DCT, which does not. The two
    differ by 0.6 of an 8-bit level on average, 0.9 with `subsample`.

    Args:
        quality: 1 to 100, scaled as libjpeg does.
        subsample: code chroma at half resolution (4:2:0), as most encoders do by default.

    Source: Dziugaite et al. 2016 (arXiv 1608.00853); Das et al. 2018 (arXiv 1802.06816). Known
    adaptive break: Shin and Song 2017, differentiable JPEG; Athalye et al., ICML 2018 (arXiv
    1802.00420), where the gradient of rounding is replaced by the identity.
    """

    name: ClassVar[str] = "jpeg"

    def __init__(self, quality: int = 75, subsample: bool = False) -> None:
        if quality not in range(1, 101):
            raise PurifierError(f"jpeg: quality must be 1 to 100, not {quality!r}")
        if not isinstance(subsample, bool):
            raise PurifierError(f"jpeg: subsample must be true or false, not {subsample!r}")
        self.quality = int(quality)
        self.subsample = subsample
        self._matrices: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        subsample = ", subsample=true" if self.subsample else ""
        return f"jpeg(quality={self.quality}{subsample})"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        if _suits_libjpeg(x):
            return self._through_libjpeg(x)
        batch, channels, height, width = x.shape
        levels = x * 255 - 128
        if channels != 3:
            return (self._coded(levels.reshape(-1, 1, height, width)).view(x.shape) + 128) / 255
        ycc = _mixed(levels + 128, _TO_YCC).round()  # (B, 3, H, W), chroma centred on 0
        luma = self._coded(ycc[:, :1] - 128) + 128
        chroma = ycc[:, 1:].reshape(batch * 2, 1, height, width)
        chroma = (self._half(chroma) if self.subsample else self._coded(chroma, chroma=True)).view(
            batch, 2, height, width
        )
        return _mixed(torch.cat((luma, chroma), dim=1), _TO_RGB) / 255

    def _through_libjpeg(self, x: Tensor) -> Tensor:
        in_colour = x.shape[1] == 3
        pixels = (x * 255).round().to(torch.uint8)
        # (B, H, W, 3), or (B*C, H, W), each channel coded as grey
        pixels = pixels.permute(0, 2, 3, 1) if in_colour else pixels.flatten(0, 1)
        images = pixels.contiguous().numpy()
        decoded = np.empty_like(images)
        for index, image in enumerate(images):
            file = io.BytesIO()
            subsampling = "4:2:0" if self.subsample else "4:4:4"
            Image.fromarray(image).save(file, "JPEG", quality=self.quality, subsampling=subsampling)
            decoded[index] = Image.open(file, formats=("JPEG",))
        y = torch.from_numpy(decoded)
        y = y.permute(0, 3, 1, 2) if in_colour else y.view(x.shape)
        return y.to(x.dtype, memory_format=torch.contiguous_format) / 255

    def _half(self, chroma: Tensor) -> Tensor:
        """Code (N, 1, H, W) at half resolution: box filter down, triangle filter up."""
        height, width = chroma.shape[-2:]
        padded = F.pad(chroma, (0, width % 2, 0, height % 2), mode="replicate")
        coded = self._coded(F.avg_pool2d(padded, 2), chroma=True)
        enlarged = F.interpolate(coded, scale_factor=2, mode="bilinear", align_corners=False)
        return enlarged[..., :height, :width]

    def _coded(self, plane: Tensor, *, chroma: bool = False) -> Tensor:
        """Quantise and restore planes centred on 0, (N, 1, H, W) in 8-bit units."""
        count, _, height, width = plane.shape
        padded = F.pad(plane, (0, -width % 8, 0, -height % 8), mode="replicate")
        rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
        blocks = padded.view(count, rows, 8, columns, 8).transpose(2, 3).reshape(-1, 64)
        forward, inverse = self._on(plane.device)
        restored = torch.round(blocks @ forward[int(chroma)]) @ inverse[int(chroma)]  # (n, 64)
        image = restored.view(count, rows, columns, 8, 8).transpose(2, 3)
        image = image.reshape(count, 1, rows * 8, columns * 8)[..., :height, :width]
        return image.clamp(-128, 127)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """DCT with the quantisation folded in, and its inverse: (2, 64, 64) luma and chroma."""
        if device not in self._matrices:
            # Kept beyond this call, perhaps for one that wants gradients.
            with torch.inference_mode(mode=False):
                dct = _dct_matrix()
                basis = torch.kron(dct, dct)  # (64, 64): block -> coefficients
                steps = torch.stack([_steps(t, self.quality) for t in (_LUMA, _CHROMA)])
                forward = basis.T * (_TIE / steps[:, None, :])  # (2, 64, 64)
                inverse = steps[:, :, None] * basis
                self._matrices[device] = (forward.float().to(device), inverse.float().to(device))
        return self._matrices[device]


def _suits_libjpeg(x: Tensor) -> bool:
    height, width = x.shape[2:]
    return (
        x.device.type == "cpu"
        and height * width >= _LIBJPEG_PIXELS
        and max(height, width) <= _LIBJPEG_SIDE
        and not torch.is_grad_enabled()
    )


def _dct_matrix() -> Tensor:
    """Orthonormal DCT-II, (8, 8) float64: row = frequency."""
    k = torch.arange(8, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * k[None, :] + 1) * k[:, None] / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _steps(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Quantisation steps, (64,) float64, by libjpeg's rule (jpeg_quality_scaling)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = torch.tensor(table, dtype=torch.float64).flatten()
    return torch.floor((base * scale + 50) / 100).clamp(1, 255)


def _mixed(x: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Apply a colour matrix to (B, 3, H, W), channel by channel (the same for every batch size)."""
    red, green, blue = x.unbind(1)
    return torch.stack([r * red + g * green + b * blue for r, g, b in matrix], dim=1)
