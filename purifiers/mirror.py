"""Left and right swapped: a view for models that do not care."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from purifiers.base import Purifier


class Mirror(Purifier):
    """Flips every image about its vertical axis.

    Keeps the meaning of photographs, not that of text or digits. Takes nothing away from a
    perturbation; but it was made for the other copy, and networks trained on mirrored images too
    mostly answer as if it were not there. Meant as a view (`detectors.mirror_view`).

    Source: Tian, Yang, Cai, AAAI 2018, for changes of geometry as views. Known adaptive break:
    attack both copies at once (Athalye et al., ICML 2018, arXiv 1707.07397).
    """

    name: ClassVar[str] = "mirror"

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return self.name

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x.flip(-1)
