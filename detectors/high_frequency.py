"""Input-only detector: more fine luma than the image's own noise and texture explain."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from detectors.bands import Band, band_energies, flatness, over_blocks
from detectors.base import Detector, Evidence, Need
from detectors.maps import Maps

_SHARE = 0.25
"""Energy in the high bands, as a share of that in the middle ones, that texture explains."""
_FLOOR = 3.0**2
"""Squared 8-bit levels that anything explains: rounding, dither, weak compression noise."""
_COLOUR = 2.0**2
"""Chroma energy at which an image counts half as coloured."""


class HighFrequency(Detector):
    """Luma energy in the highest cosine bands, against what is expected there.

    Expected is the energy of the chroma in the same bands, a quarter of the luma's energy in the
    middle bands, and a floor, all averaged with more weight on flat blocks. Benign noise is as
    strong in chroma as in luma, so it cancels; texture falls off towards the high bands; gradients
    of a network do neither: their luma is about twice as strong as their chroma, and does not fall
    off. The energy alone is either blind or alarms on noise. An image without colour has no chroma
    to tell its noise by: its luma stands in, and it stays quiet. With one channel the ratio is to
    texture and floor only, so calibrate it with noise.

    Sees FGSM (0.92), PGD 8/255 (0.79) and some of PGD 4/255 (0.22) beside benign noise up to sigma
    5/255, and most patches (CIFAR-10, 1 % of the worst benign group). Does not see PGD 2/255,
    minimal or smooth attacks, or Square, whose stripes are middle bands (see `chroma`). Noise that
    is equal in all channels (film grain) alarms unless calibrated with, as do sharper images.

    Source: high-frequency statistics after Harder et al., IJCNN 2021 (arXiv 2103.03000), and Wang
    et al., CVPR 2020 (arXiv 1905.13545); the ratio to the chroma is our own. Known adaptive break:
    any low-frequency perturbation, e.g. Guo et al., UAI 2019 (arXiv 1809.08758).
    """

    name: ClassVar[str] = "high_frequency"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def _score(self, evidence: Evidence) -> Tensor:
        return evidence.pieces.each(_ratio)


def _ratio(maps: Maps) -> Tensor:
    """The score, (B,)."""
    luma, chroma = maps.of(band_energies)
    weight = flatness(luma[Band.CONTENT])  # (Y, B, X)
    high, noise = luma[Band.HIGHEST], chroma[Band.HIGHEST]
    if maps.x.shape[1] > 1:
        # Over all bands but the mean colour; an attack on a grey image colours it.
        colour = chroma[Band.ALL].mean((0, 2))[:, None]
        noise = noise + _COLOUR / (_COLOUR + colour) * high
    expected = torch.add(noise, luma[Band.UPPER_MIDDLE], alpha=_SHARE) + _FLOOR
    # Flat images have nothing there at all: far below expectation, but no further than this.
    found = over_blocks(high * weight) + 1e-6
    return (found / over_blocks(expected * weight)).log()
