"""The fingerprints of one model's inputs, under the salts in force; on the device's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectors.content_fingerprint import ContentFingerprint
from detectors.digest import Digest
from detectors.perceptual_fingerprint import PerceptualFingerprint
from detectors.sketch import Sketcher

CONTENT, PERCEPTUAL = 16, 8
KEYS = CONTENT + PERCEPTUAL + 1
"""Keys a query is remembered under: of its content, of its looks, and of who asked."""
_OF_OWNER = 8
"""Samples of a request that are found by who asked. It is for the first steps of a search, which
come one by one, and costs a tenth of a millisecond a sample."""


@dataclass(frozen=True, slots=True)
class Prints:
    """What the history is told of B inputs: never pixels."""

    keys: npt.NDArray[np.uint64]
    """(E, B, KEYS): under the salt of this epoch and, where it is young, of the last. The last one
    is 0 until `of` says who asked."""
    sketch: npt.NDArray[np.int16]
    """(B, D), see `detectors.sketch`."""
    digest: npt.NDArray[np.uint64]
    """(B,), equal for identical inputs."""
    anomaly: npt.NDArray[np.float32]
    """(B,) -log of the benign share whose input looks more suspicious; 0 where nothing looks."""

    def of(self, owner: int) -> Prints:
        """The same, asked by this owner: the owner's latest queries are found by it too."""
        keys = self.keys.copy()
        keys[:, :_OF_OWNER, -1] = owner or 1
        return replace(self, keys=keys)

    def __getitem__(self, rows: slice) -> Prints:
        """Those of some of the inputs."""
        return Prints(self.keys[:, rows], self.sketch[rows], self.digest[rows], self.anomaly[rows])


class Fingerprinter:
    """Fingerprints of one model's inputs.

    Args:
        steady: key of what must stay comparable from one epoch to the next.
        salts: the keys of the epochs in force, this one's first.
    """

    def __init__(self, steady: bytes, salts: Callable[[], tuple[bytes, ...]]) -> None:
        self._sketcher, self._digest = Sketcher(steady), Digest(steady)
        self._salts = salts
        self._salted: dict[bytes, tuple[ContentFingerprint, PerceptualFingerprint]] = {}

    def __call__(self, x: Tensor, anomaly: Tensor) -> Prints:
        """Fingerprint inputs.

        Args:
            x: (B, C, H, W) float32 in [0, 1].
            anomaly: (B,), see `Prints.anomaly`.
        """
        salts = self._salts()
        self._salted = {
            salt: self._salted.get(salt)
            or (
                ContentFingerprint(salt, keys=CONTENT),
                PerceptualFingerprint(salt, keys=PERCEPTUAL),
            )
            for salt in salts
        }
        nobody = torch.zeros((len(x), 1), dtype=torch.int64, device=x.device)
        keys = torch.stack(
            [
                torch.cat([*(each(x) for each in pair), nobody], dim=1)
                for pair in self._salted.values()
            ]
        )
        return Prints(
            keys.cpu().numpy().view(np.uint64),
            self._sketcher(x).cpu().numpy(),
            self._digest(x).cpu().numpy().view(np.uint64),
            anomaly.cpu().numpy(),
        )
