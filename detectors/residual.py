"""Input-only detector: is the fine texture one that any benign kind of image has?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.gaussians import GroupGaussians

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
        self._transform: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Fit one Gaussian per group; a group needs at least 48 colour images (20 grey ones)."""
        with torch.inference_mode():
            features = [
                torch.cat([self._features(part) for part in torch.split(evidence.x, 256)])
                for evidence in benign.values()
            ]
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
        return self._model.distance(self._features(evidence.x))

    def _features(self, x: Tensor) -> Tensor:
        """Log band energies, (B, 2 * planes * bands)."""
        batch, channels, height, width = x.shape
        planes = _opponent(x) if channels == 3 else x
        planes = planes.reshape(batch * channels, 1, height, width)
        short_y, short_x = max(0, _SIDE - height), max(0, _SIDE - width)
        planes = F.pad(planes, (0, short_x, 0, short_y), mode="replicate")
        kernels, bands = self._on(x.device)
        coefficients = F.conv2d(planes, kernels, stride=_STRIDE).flatten(2)  # (B*C, 15, blocks)
        energy = (bands @ coefficients.square()).unflatten(
            0, (batch, channels)
        )  # (B, C, 5, blocks)
        content = energy[:, :1, :1]  # low bands of the first plane, (B, 1, 1, blocks)
        high = energy[:, :, 1:]
        weight = _FLAT / (content + _FLAT)
        flat = (high * weight).sum(-1) / weight.sum(-1)
        return torch.cat((high.mean(-1), flat), dim=1).flatten(1).add(_FLOOR).log()

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Transform kernels without the mean, (15, 1, 4, 4), and band averages, (5, 15)."""
        if device not in self._transform:
            # Made in inference mode they could never take part in a gradient.
            with torch.inference_mode(mode=False):
                k = torch.arange(_SIDE, dtype=torch.float64)
                dct = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * _SIDE))
                dct *= math.sqrt(2 / _SIDE)
                dct[0] /= math.sqrt(2)
                kernels = torch.einsum("ij,kl->ikjl", dct, dct).reshape(-1, 1, _SIDE, _SIDE)[1:]
                band = (k[:, None] + k[None]).flatten()[1:]
                members = torch.stack([band < _HIGH[0], *(band == b for b in _HIGH)]).double()
                bands = members / members.sum(1, keepdim=True)
                self._transform[device] = (kernels.float().to(device), bands.float().to(device))
        return self._transform[device]


def _opponent(x: Tensor) -> Tensor:
    """Mean, red - green and blue - green, (B, 3, H, W): benign noise and texture differ in them."""
    red, green, blue = x.unbind(1)
    return torch.stack(((red + green + blue) / 3, red - green, blue - green), dim=1)
