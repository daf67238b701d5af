"""Input-only detector: how noisy are the flattest parts of the image?"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from detectors.bands import Band, band_energies
from detectors.base import Detector, Evidence, Need
from detectors.maps import Maps

_SHARE = 10
"""One block in this many counts as flat. A tenth detected 0.55 of PGD 8/255, a quarter 0.34
(CIFAR-10, at 1 % of the worst benign group)."""
_FLOOR = 0.5
"""Squared 8-bit levels: below the energy of rounding to 8 bits there is nothing to compare."""


class FlatNoise(Detector):
    """Log energy of the highest luma bands in the tenth of the blocks with the least content.

    A perturbation has nothing to hide behind in sky or wall. One-sided: denoised and blurred
    images are quiet.

    Sees FGSM and about half of PGD 8/255 above benign noise of sigma 5/255; with a calibration of
    clean images alone also weaker ones. Does not see patches (most blocks are untouched), or
    smooth and minimal attacks; images flat nowhere hide everything.

    Source: noise level from flat areas after Immerkaer, CVIU 64(2), 1996, and Liu et al., IEEE TIP
    2013 (noise estimation from weakly textured patches). Known adaptive break: perturb textured
    areas only, e.g. Luo et al., AAAI 2018 (arXiv 1801.04693).
    """

    name: ClassVar[str] = "flat_noise"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def _score(self, evidence: Evidence) -> Tensor:
        return evidence.pieces.each(_level)


def _level(maps: Maps) -> Tensor:
    """The score, (B,)."""
    luma, _ = maps.of(band_energies)
    content, energy = (
        luma[band].transpose(0, 1).flatten(1) for band in (Band.CONTENT, Band.HIGHEST)
    )  # (B, N) each
    count = -(-content.shape[1] // _SHARE)
    flattest = content.topk(count, dim=1, largest=False, sorted=False).indices
    noise = energy.gather(1, flattest).mean(1)
    # A block that is not finite is never among the flattest; 0 * sum keeps it visible.
    return (noise + _FLOOR).log() + 0 * content.sum(1)
