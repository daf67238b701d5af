"""Input-only detector: is the fine texture one that any benign kind of image has?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from detectors.bands import at_least, blocks, cosines, opponent, squared
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.gaussians import GroupGaussians
from detectors.maps import Maps

_SIDE, _STRIDE = 4, 2
"""Transform block and step in pixels. Overlapping 4x4 blocks detected more than 8x8 blocks or
4x4 blocks side by side (PGD 8/255, CIFAR-10, worst of 11 benign groups of one strength at 5 %:
0.75 against 0.74 and 0.38), and fit 8x8 images."""
_HIGH = range(3, 7)
"""Bands u + v of the transform that are modelled; the lower ones are mostly image content."""
_FLOOR = (2 / 255) ** 2
"""Energy added before the logarithm: textures weaker than 2/255 are all alike. Without a floor
saturated and synthetic images, whose energy is nearly 0, dominate the tails."""
_FLAT = (8 / 255) ** 2
"""Content energy at which a block's weight in the flat-area average has halved."""


class Residual(Detector):
    """Distance of the high-frequency texture from that of every benign group.

    Energies of the upper bands of a 4x4 cosine transform, for luma and two colour differences
    (three channels) or each channel alone, once averaged over the whole image and once over its
    flat areas, where a perturbation has nothing to hide behind. Their logarithms are compared with
    one Gaussian per benign group, so noise and JPEG are explained by their own groups.

    Sees attacks that leave high-frequency traces (FGSM, patches, Square, strong PGD). Does not see
    weak PGD (2-4/255) beside benign noise, minimal attacks such as DeepFool, or smooth ones.

    Source: cosine-domain statistics after Fridrich and Kodovsky, TIFS 2012 (rich models), and
    Harder et al., IJCNN 2021 (arXiv 2103.03000); one Gaussian per group after Lee et al., NeurIPS
    2018 (arXiv 1807.03888). Known adaptive break: a penalty on the score in the attack's loss
    (Carlini and Wagner, AISec 2017, arXiv 1705.07263), or any low-frequency perturbation.
    """

    name: ClassVar[str] = "residual"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def __init__(self) -> None:
        self._model: GroupGaussians | None = None

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Fit one Gaussian per group; a group needs at least 48 colour images (20 grey ones)."""
        with torch.inference_mode():
            features = [evidence.pieces.each(_features) for evidence in benign.values()]
        self._model = GroupGaussians.fit(features)

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        return self._model.state() if self._model else {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        self._model = GroupGaussians.from_state(state, device)

    def _score(self, evidence: Evidence) -> Tensor:
        if self._model is None:
            raise DetectorError(f"{self.name} was not fitted")
        model = self._model
        return evidence.pieces.each(lambda maps: model.distance(_features(maps)))


def _features(maps: Maps) -> Tensor:
    """Log band energies, (B, 2 * planes * bands)."""
    planes = at_least(_planes(maps), _SIDE)
    transform, bands = _matrices(planes.device)
    coefficients = blocks(planes, transform, _STRIDE)
    squares = squared(coefficients).flatten(2)  # (Y, 16, C*B*X)
    energy = torch.bmm(bands.expand(len(squares), *bands.shape), squares)
    energy = energy.view(len(energy), len(bands), *coefficients.shape[2:])  # (Y, 5, C, B, X)
    content = energy[:, 0, 0]  # low bands of the first plane, (Y, B, X)
    high = energy[:, 1:]
    weight = _FLAT / (content + _FLAT)
    flat = (high * weight[:, None, None]).sum((0, 4)) / weight.sum((0, 2))  # (4, C, B)
    plain = high.mean((0, 4))
    features = torch.stack((plain, flat)).transpose(1, 2)  # (2, C, 4, B)
    # Planes first, bands last, as in saved Gaussians.
    return features.add(_FLOOR).log().transpose(0, 1).flatten(0, 2).T


def _planes(maps: Maps) -> Tensor:
    """Mean, red - green and blue - green, or each channel alone: (C, B, H, W).

    Benign noise and texture differ between these.
    """
    if maps.x.shape[1] != 3:
        return maps.x.transpose(0, 1).contiguous()
    red, green, blue = maps.x.unbind(1)
    mean = maps.of(opponent)[0] * (1 / math.sqrt(3))
    return torch.stack((mean, red - green, blue - green))


@cache
def _matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    """The transform, (4, 4), and band averages, the low ones together without the mean, (5, 16)."""
    # Made in inference mode they could never take part in a gradient.
    with torch.inference_mode(mode=False):
        k = torch.arange(_SIDE)
        band = (k[:, None] + k).flatten()
        low = (band > 0) & (band < _HIGH[0])
        members = torch.stack([low, *(band == b for b in _HIGH)]).double()
        bands = members / members.sum(1, keepdim=True)
        return cosines(_SIDE).float().to(device), bands.float().to(device)
