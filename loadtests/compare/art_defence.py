"""Feature squeezing and JPEG purification with ART's preprocessors, for the peers that use them.

Imports nothing of this project: it also runs in the environment of MLServer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from art.defences.preprocessor import FeatureSqueezing, JpegCompression, SpatialSmoothing


class ArtDefence:
    """Xu et al.'s detector and its purifier; every array is float32, (B, C, H, W) in [0, 1].

    Args:
        threshold: largest change of the softmax, L1, that passes.

    Source: Xu, Evans, Qi, NDSS 2018 (arXiv 1704.01155), 3.3.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        clip: dict[str, Any] = {"clip_values": (0.0, 1.0)}
        self._views = (
            FeatureSqueezing(bit_depth=5, **clip),
            SpatialSmoothing(window_size=3, channels_first=True, **clip),
        )
        self._jpeg = JpegCompression(quality=75, channels_first=True, **clip)

    def with_views(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The images and their two squeezed copies, (3B, C, H, W), original first."""
        copies = [view(x)[0].astype(np.float32, copy=False) for view in self._views]
        return np.concatenate([x, *copies])

    def flagged(self, answers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which images, (B,) bool, from the model's logits on `with_views`, (3B, K)."""
        return np.asarray(~(scores(answers) <= self._threshold))

    def purified(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The images through JPEG."""
        return np.asarray(self._jpeg(x)[0], np.float32)


def scores(answers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Largest L1 distance of the softmaxes, (B,) in [0, 2], from logits (3B, K)."""
    powers = np.exp(answers - answers.max(1, keepdims=True))
    softmax = (powers / powers.sum(1, keepdims=True)).reshape(3, -1, answers.shape[1])
    return np.asarray(np.abs(softmax[0] - softmax[1:]).sum(2).max(0))
