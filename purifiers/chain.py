"""Several purifiers in a row, as one purifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

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

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return " > ".join(purifier.key for purifier in self.purifiers)

    def _purify(self, x: Tensor) -> Tensor:
        for purifier in self.purifiers:
            x = purifier.purify(x)
        return x
