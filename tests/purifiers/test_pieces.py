from __future__ import annotations

import pytest
import torch
from torch import Tensor

from purifiers.pieces import in_pieces


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 1, 2, 2), [1]),
        ((100, 3, 32, 32), [42, 42, 16]),
        ((3, 3, 224, 224), [1, 1, 1]),
        ((2, 3, 100, 100), [2]),
    ],
)
def test_pieces_are_small_and_in_order(shape: tuple[int, ...], sizes: list[int]) -> None:
    x = torch.rand(shape)
    seen = []

    def doubled(piece: Tensor) -> Tensor:
        seen.append(len(piece))
        return 2 * piece

    assert torch.equal(in_pieces(doubled, x), 2 * x)
    assert seen == sizes
