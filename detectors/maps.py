"""What input-only detectors share: maps of the pixels that are made once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

_PIECE = 150_528
"""Values of an input at most that are looked at together on a CPU: an image of 3x224x224, or 48 of
3x32x32. The temporaries of one piece then stay in the cache; in whole batches of 32 photographs
they do not, and every one costs page faults besides (see `python -m loadtests.scoring_cost`)."""
_KEPT = 2**25
"""Values of a batch at most whose maps are kept: 128 MiB, 222 images of 3x224x224. Larger ones
come up in calibration only, where maps of everything would fill the memory."""


class Maps:
    """Inputs of a few samples, and what has been made of them so far.

    Args:
        x: (B, C, H, W), or another kind of input.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._made: dict[Callable[[Maps], Any], Any] = {}

    def of(self, make: Callable[[Maps], T]) -> T:
        """Return `make(self)`, made at most once while no gradients are wanted.

        With gradients it is made anew each time: a graph belongs to one backward pass, and takes no
        tensor made in inference mode.
        """
        if not torch.is_inference_mode_enabled():
            return make(self)
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made


class Pieces:
    """A batch in pieces small enough for the cache, each with its maps.

    On an accelerator a batch is one piece: there every kernel started costs.
    """

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._kept: list[Maps] | None = None

    def each(self, score: Callable[[Maps], Tensor]) -> Tensor:
        """Return `score` of every piece, joined along the samples."""
        pieces = self._pieces()
        if len(pieces) == 1:
            return score(pieces[0])
        return torch.cat([score(piece) for piece in pieces])

    def _pieces(self) -> list[Maps]:
        if self._kept is not None:
            return self._kept
        x = self._x
        if x.device.type != "cpu" or x.numel() <= _PIECE:
            pieces = [Maps(x)]
        else:
            samples = max(1, _PIECE * len(x) // x.numel())
            pieces = [Maps(part) for part in x.split(samples)]
        if x.numel() <= _KEPT:
            self._kept = pieces
        return pieces
