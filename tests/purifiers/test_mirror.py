from __future__ import annotations

import torch

from purifiers.mirror import Mirror


def test_columns_change_places() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3) / 6
    expected = torch.tensor([[[[2.0, 1, 0], [5, 4, 3]]]]) / 6
    assert torch.equal(Mirror().purify(x), expected)


def test_twice_is_nothing() -> None:
    x = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(Mirror().purify(Mirror().purify(x)), x)
