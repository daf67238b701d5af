"""Input-only detector: more colour texture than the image's own noise and colours explain."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from detectors.bands import Band, band_energies, flatness, over_blocks
from detectors.base import Detector, Evidence, Need
from detectors.maps import Maps

_SHARE = 0.05
"""Energy in the middle bands, as a share of that in the low ones, that benign colours explain."""
_FLOOR = 1.5**2
"""Squared 8-bit levels that anything explains: rounding, dither, weak compression noise."""


class Chroma(Detector):
    """Energy of colour differences in the middle cosine bands, against what is expected there.

    Benign chroma is smooth and its noise is white: expected are the energy of the highest bands,
    which is that of the noise, a small share of the low bands, and a floor, all averaged with more
    weight on flat blocks. The plain energy of the colour differences (second differences of red -
    green and blue - green) separates attacks from clean images best of all input statistics and
    fails on the first noisy camera: at 1 % of benign noise up to sigma 5/255 it detects patches
    only. A grey image has no colour differences: it scores log 1 = 0, about as noise does.

    Sees Square (0.83), patches (0.77), half of FGSM and PGD 8/255 (CIFAR-10, 1 % of the worst
    benign group). Does not see PGD 2/255, smooth or minimal attacks, nor any that is equal in all
    channels. Sharper images than the calibration's (photographs scaled down) alarm.

    Source: colour differences of steganalysis, Goljan, Cogranne and Fridrich, WIFS 2014 (colour
    rich model); the ratio between bands is our own. Known adaptive break: perturbations equal in
    all channels; a penalty on the score in the attack's loss (Carlini and Wagner, AISec 2017,
    arXiv 1705.07263).
    """

    name: ClassVar[str] = "chroma"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def _score(self, evidence: Evidence) -> Tensor:
        return evidence.pieces.each(_ratio)


def _ratio(maps: Maps) -> Tensor:
    """The score, (B,)."""
    luma, chroma = maps.of(band_energies)
    weight = flatness(torch.add(luma[Band.CONTENT], chroma[Band.CONTENT], alpha=2))  # (Y, B, X)
    explained = torch.add(chroma[Band.HIGH], chroma[Band.LOW], alpha=_SHARE) + _FLOOR
    found = chroma[Band.LOWER_MIDDLE] + _FLOOR
    return (over_blocks(found * weight) / over_blocks(explained * weight)).log()
