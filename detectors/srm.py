"""Input-only detector: moments and co-occurrences of truncated residuals, one-class, one-sided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from detectors.bands import at_least, opponent
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.differences import cross_difference, differences, dots
from detectors.gaussians import GroupGaussians
from detectors.maps import Maps

_NORMS = (math.sqrt(2), math.sqrt(6), math.sqrt(20), 6.0)
"""Of the residuals' taps: differences of first, second and third order, along rows or along
columns, and the product of the second along both."""
_LEAST_SIDE = 5
"""Of an image, in pixels; smaller ones are extended."""
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

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn medians and Gaussians; a group needs 56 colour images (28 grey ones)."""
        if not benign:
            raise DetectorError(f"{self.name}: needs at least one benign group")
        with torch.inference_mode():
            groups = [evidence.pieces.each(_features) for evidence in benign.values()]
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
        model, medians = self._model, self._medians
        return evidence.pieces.each(
            lambda maps: model.distance(torch.maximum(_features(maps), medians))
        )


def _features(maps: Maps) -> Tensor:
    """Log energies and co-occurrences, (B, 14) of one channel and (B, 28) of several."""
    planes = maps.of(opponent)
    height, width = planes.shape[-2:]
    # The product of second differences lies about a pixel, the others right of and below it.
    cross = maps.of(cross_difference)[..., 1 : height - 2, 1 : width - 2]
    if min(height, width) < _LEAST_SIDE:
        planes = at_least(planes, _LEAST_SIDE)
        height, width = planes.shape[-2:]
        cross = differences(differences(planes, -1)[1], -2)[1]
    height, width = height - 3, width - 3
    along_x = _truncated([*differences(planes, -1), cross], height, width)  # (4, C, B, H'*W')
    along_y = _truncated(differences(planes, -2), height, width + 1)  # (3, C, B, H'*(W'+1))
    # A column of zeros between the rows, so that the last pixel of one and the first of the next
    # are no neighbours.
    along_y.unflatten(3, (height, width + 1))[..., -1] = 0
    moments = torch.cat(
        (
            dots(along_x, along_x),
            dots(along_y, along_y),
            dots(along_x[..., width:], along_x[..., :-width]),
            dots(along_y[..., 1:], along_y[..., :-1]),
        )
    )  # (14, C, B)
    gains, parts = _means(height, width, len(planes), planes.device)
    means = (parts @ (moments * gains)).unflatten(0, (2, 7)).transpose(1, 2)  # (2, 1 or 2, 7, B)
    features: Tensor = means.flatten(0, 2).T.clamp_min(0)
    return (features + _LEAST).log()


def _truncated(residuals: Sequence[Tensor], height: int, width: int) -> Tensor:
    """The first rows and columns of residuals, truncated, (R, C, B, height * width)."""
    cut = [residual[..., :height, :width] for residual in residuals]
    bounds = [_TRUNCATION * norm for norm in _NORMS]
    if torch.is_inference_mode_enabled():
        done = cut[0].new_empty(len(cut), *cut[0].shape)
        for residual, bound, target in zip(cut, bounds, done, strict=False):
            torch.clamp(residual, -bound, bound, out=target)
    else:
        done = torch.stack(
            [part.clamp(-bound, bound) for part, bound in zip(cut, bounds, strict=False)]
        )
    return done.flatten(3)


@cache
def _means(height: int, width: int, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What makes sums means, of residuals of unit norm, (14, 1, 1), and of luma and chroma, (P, C).

    Args:
        height: rows of residuals, as width.
    """
    with torch.inference_mode(mode=False):
        norms = torch.tensor([*_NORMS, *_NORMS[:3]], dtype=torch.float64)
        below, beside = (height - 1) * width, height * (width - 1)
        counts = torch.tensor([height * width] * 7 + [below] * 4 + [beside] * 3)
        gains = 1 / (norms.square().repeat(2) * counts)
        parts = torch.zeros(min(channels, 2), channels)
        parts[0, 0] = 1
        parts[1:, 1:] = 1 / max(1, channels - 1)
        return gains.float()[:, None, None].to(device), parts.to(device)
