"""Several purifiers in a row, as one purifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from purifiers.base import Purifier, PurifierError


class Chain(Purifier):
    """Applies purifiers in the given order.

    Args:
        purifiers: at least one.
    """

    name: ClassVar[str] = "chain"

    def __init__(self, purifiers: Sequence[Purifier]) -> None:
        if not purifiers:
            raise PurifierError("chain: needs at least one purifier")
        self.purifiers = tuple(purifiers)
        self.is_random = any(purifier.is_random for purifier in purifiers)

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return " > ".join(purifier.key for purifier in self.purifiers)

    @property
    def members(self) -> tuple[Purifier, ...]:
        """See `Purifier.members`."""
        return tuple(member for purifier in self.purifiers for member in purifier.members)

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        for purifier in self.purifiers:
            x = purifier.purify(x, generator, gradients=torch.is_grad_enabled())
        return x
