from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from purifiers import Autoencoder
from purifiers.learned import Lesson


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def test_the_loss_is_the_distance_from_the_varied_image() -> None:
    x = torch.zeros(4, 1, 8, 8)
    loss = Autoencoder.recipe.loss(Zero(), Lesson(x, x + 0.25), torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0.25)


def test_fine_structure_does_not_get_through_an_untrained_one() -> None:
    autoencoder = Autoencoder()
    autoencoder.use(Autoencoder.recipe.build((1, 32, 32), 0).eval())
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2.0
    purified = autoencoder.purify(board[None, None])
    torch.testing.assert_close(purified, torch.full_like(purified, 0.5))
