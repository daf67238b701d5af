"""Ordinary traffic that looks alike: video, bursts of photos, edits, retries, monitors.

A detector of query attacks looks for inputs that resemble earlier ones, and so do these. It learns
from some kinds (`CALIBRATED`) what is ordinary; the others (`UNSEEN`) tell how it fares with what
it has never met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from detectors import benign_cameras as cameras
from detectors import benign_clients as clients
from detectors import benign_edits as edits
from detectors import benign_motion as motion
from detectors.base import DetectorError
from detectors.benign import rounded
from detectors.dice import Dice

Recipe = Callable[[Tensor, int, Dice], Tensor]
"""Makes (length, C, H, W), about in [0, 1], of an image (C, H, W)."""

_CALIBRATED: tuple[Recipe, ...] = (
    *(motion.slow_pan, motion.fast_pan, motion.hand_shake, motion.moving_object),
    *(motion.zoom, motion.resized_pan, motion.interlaced, motion.burst),
    *(cameras.sensor, cameras.jpeg_camera, cameras.resized_camera, cameras.flicker),
    *(cameras.clock, cameras.cuts, cameras.codec),
    *(edits.crops, edits.sliders, edits.qualities, edits.watermarks, edits.colour_filters),
    *(edits.blurs, edits.resize_chain),
    *(clients.noisy_copies, clients.encoders, clients.counting_canary, clients.augmentation),
)
_UNSEEN: tuple[Recipe, ...] = (
    *(motion.noisy_pan, motion.rotation, motion.perspective, motion.parallax),
    *(motion.motion_blur, motion.rolling_shutter, motion.dropped_frames),
    *(cameras.developed_sensor, cameras.lighting_drift, cameras.hunting, cameras.ticker),
    *(cameras.screen, cameras.fade),
    *(edits.sharpening, edits.saturation, edits.captions, edits.stickers, edits.rotations),
    edits.borders,
    *(clients.ten_crop, clients.canary, clients.retries, clients.padded_crops),
)

KINDS: Mapping[str, Recipe] = MappingProxyType(
    {kind.__name__: kind for kind in (*_CALIBRATED, *_UNSEEN)}
)
"""Every kind by name."""
CALIBRATED = tuple(kind.__name__ for kind in _CALIBRATED)
"""What the detector is calibrated on: about half, of every family."""
UNSEEN = tuple(kind.__name__ for kind in _UNSEEN)
"""What it is not."""
FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        family: tuple(name for name, kind in KINDS.items() if kind.__module__ == module.__name__)
        for family, module in (
            *(("motion", motion), ("cameras", cameras)),
            *(("edits", edits), ("clients", clients)),
        )
    }
)
"""The kinds by what makes frames differ: movement, the camera, editing, or the client."""
FLOATS = frozenset({"resized_pan", "resized_camera", "resize_chain", "noisy_copies"})
"""Kinds that reach the model as floats: resized, or changed, after they were 8-bit images."""


def sequence(kind: str, x: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return a sequence of one kind, made of one image; how strong it is, is drawn anew each time.

    Args:
        kind: one of `KINDS`.
        x: (C, H, W) float32 in [0, 1], C 1 or 3, H and W at least 8.
        length: how many frames, at least 1.
        generator: source of all that is random, on the CPU.

    Returns:
        (length, C, H, W) float32 in [0, 1] on the device of `x`, rounded to 8 bits but for those in
        `FLOATS`.

    Raises:
        DetectorError: there is no such kind, or `x` or `length` is not as described.
    """
    if kind not in KINDS:
        raise DetectorError(f"there is no kind of sequence {kind!r}, only {', '.join(KINDS)}")
    if x.dim() != 3 or x.shape[0] not in (1, 3) or min(x.shape[1:]) < 8 or length < 1:
        raise DetectorError(f"{tuple(x.shape)} cannot be made a sequence of {length}")
    frames = KINDS[kind](x.cpu(), length, Dice(generator))
    frames = frames.clamp(0, 1) if kind in FLOATS else rounded(frames)
    return frames.to(x.device)
