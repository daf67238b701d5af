"""Input-only detector: does one place of the image stand out from the rest?"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from detectors.base import Detector, Evidence, Need
from detectors.differences import cross_difference
from detectors.maps import Maps
from purifiers.localise import local_texture, lower_median


class Patch(Detector):
    """The strongest local evidence: dense fine texture against the image's own.

    See `purifiers.localise`; `patch_suppression` removes what this detector sees.

    Sees patches of about 1/16 of the area whose content was optimised freely (noise-like). Does
    not see perturbations spread over the image, patches much smaller than the window, smooth or
    natural-looking ones, or patches in images textured everywhere.

    Source: Naseer et al., WACV 2019 (arXiv 1807.01216); local noise as evidence after Hayes, CVPR
    Workshops 2018 (digital watermarking). Known adaptive break: Chiang et al., ICLR 2020 (arXiv
    2003.06693), attack both through their gradients.
    """

    name: ClassVar[str] = "patch"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def _score(self, evidence: Evidence) -> Tensor:
        return evidence.pieces.each(_strongest)


def _strongest(maps: Maps) -> Tensor:
    """The score, (B,)."""
    energy = maps.of(cross_difference).square().mean(0) / 36  # (B, H, W)
    texture = local_texture(energy).flatten(1)
    return texture.amax(1) - lower_median(texture)
