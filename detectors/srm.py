"""Input-only detector: moments and co-occurrences of truncated residuals, one-class, one-sided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.bands import at_least, opponent
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.gaussians import GroupGaussians

_TAPS = ((1.0, -1.0), (1.0, -2.0, 1.0), (1.0, -3.0, 3.0, -1.0))
"""Differences of first, second and third order, along rows and along columns; the outer product
of the second with itself is the seventh residual."""
_TRUNCATION = 4 / 255
"""Residuals beyond this count as this much, so that edges do not drown the rest."""
_LEAST = (1 / 255) ** 2
"""Energy added before the logarithms: residuals of less than a level are all alike."""


class Srm(Detector):
    """Distance of residual statistics from every benign group, towards more residual only.

    Seven linear residuals of luma and colour differences, normalised to unit gain for white noise
    and truncated. Of each, for luma and chroma, the log energy, and the log of the mean product of
    neighbours across the direction of the difference where it is positive: stripes and block edges
    raise it. Both grow with the residual; divided by the energy, the products would grow as an
    image gets smoother. One Gaussian per benign group. Features below their benign median count as
    the median: a two-sided distance alarms on smoother pipelines it does not know (58 % of images
    enlarged twice, this way none). Steep even gradients, drawn rather than photographed, alarm.

    Sees Square (0.91 at 1 % of the worst benign group), whose stripes no benign image has. Does not
    see much else once benign noise is calibrated for: FGSM and PGD are taken for noise (see
    `high_frequency`), patches for texture (see `patch`). Sharper images than the calibration's
    (photographs scaled down) alarm.

    Source: Fridrich and Kodovsky, IEEE TIFS 7(3), 2012 (rich models), with moments in place of
    whole co-occurrence matrices: these need thousands of samples, and are not differentiable.
    Known adaptive break: a penalty on the score in the attack's loss (Carlini and Wagner, AISec
    2017, arXiv 1705.07263).
    """

    name: ClassVar[str] = "srm"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def __init__(self) -> None:
        self._medians: Tensor | None = None
        self._model: GroupGaussians | None = None
        self._kernels: dict[torch.device, Tensor] = {}

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn medians and Gaussians; a group needs 56 colour images (28 grey ones)."""
        if not benign:
            raise DetectorError(f"{self.name}: needs at least one benign group")
        with torch.no_grad():
            groups = [
                torch.cat([self._features(part) for part in torch.split(evidence.x, 256)])
                for evidence in benign.values()
            ]
            medians = torch.cat(groups).median(dim=0).values
        self._model = GroupGaussians.fit([torch.maximum(group, medians) for group in groups])
        self._medians = medians

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        if self._model is None or self._medians is None:
            return {}
        return {"medians": self._medians, **self._model.state()}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        if "medians" not in state:
            raise DetectorError(f"{self.name}: no medians in the state, only {sorted(state)}")
        rest = {key: tensor for key, tensor in state.items() if key != "medians"}
        self._model = GroupGaussians.from_state(rest, device)
        self._medians = state["medians"].to(device)

    def _score(self, evidence: Evidence) -> Tensor:
        if self._model is None or self._medians is None:
            raise DetectorError(f"{self.name} was not fitted")
        return self._model.distance(torch.maximum(self._features(evidence.x), self._medians))

    def _features(self, x: Tensor) -> Tensor:
        """Log energies and co-occurrences, (B, 14) of one channel and (B, 28) of several."""
        planes = at_least(opponent(x), 5)
        batch, channels = planes.shape[:2]
        residuals = F.conv2d(planes.flatten(0, 1)[:, None], self._on(x.device))
        # (B, C, 7, H', W'), rows first: 3 along x and the product, then 3 along y.
        residuals = residuals.clamp(-_TRUNCATION, _TRUNCATION).unflatten(0, (batch, channels))
        energy = residuals.square().mean((3, 4))  # (B, C, 7)
        along_x, along_y = residuals[:, :, :4], residuals[:, :, 4:]
        products = torch.cat(
            (
                (along_x[..., 1:, :] * along_x[..., :-1, :]).mean((3, 4)),
                (along_y[..., 1:] * along_y[..., :-1]).mean((3, 4)),
            ),
            dim=2,
        )  # (B, C, 7)
        moments = torch.stack((energy, products), dim=1)  # (B, 2, C, 7)
        parts = [moments[:, :, 0]]
        if channels > 1:
            parts.append(moments[:, :, 1:].mean(2))
        energy, products = torch.stack(parts, dim=2).flatten(2).unbind(1)  # (B, 7 or 14) each
        return (torch.cat((energy, products.clamp_min(0)), dim=1) + _LEAST).log()

    def _on(self, device: torch.device) -> Tensor:
        """The residuals' kernels, (7, 1, 4, 4), each of unit norm."""
        if device not in self._kernels:
            # Also for passes with gradients, which take no tensor made in inference mode.
            with torch.inference_mode(mode=False):
                kernels = torch.zeros(7, 1, 4, 4, dtype=torch.float64)
                for i, taps in enumerate(_TAPS):
                    line = torch.tensor(taps, dtype=torch.float64)
                    line = line / line.norm()
                    kernels[i, 0, 0, : len(taps)] = line
                    kernels[i + 4, 0, : len(taps), 0] = line
                second = torch.tensor(_TAPS[1], dtype=torch.float64) / math.sqrt(6)
                kernels[3, 0, :3, :3] = second[:, None] * second
                self._kernels[device] = kernels.float().to(device)
        return self._kernels[device]
