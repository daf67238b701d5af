from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from purifiers import GuidedDenoiser, PurifierError
from purifiers.guided_denoiser import occluded
from purifiers.learned import Lesson


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


class Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def grey(count: int, channels: int = 3) -> Tensor:
    return torch.full((count, channels, 32, 32), 0.5)


def test_two_of_eight_attacked_images_are_occluded_instead() -> None:
    x = grey(16)
    attacked = x + 1 / 255
    damaged = occluded(attacked, x, generator())
    assert torch.equal(damaged[4:], attacked[4:])
    assert torch.equal(x, grey(16))
    squares = (damaged[:2] - x[:2]).abs().flatten(1) * 255  # one strength an image, everywhere
    torch.testing.assert_close(squares, squares[:, :1].expand_as(squares))
    assert squares.min() >= 4
    assert squares.max() <= 12
    changed = (damaged[2:4] != x[2:4]).any(1)  # (2, 32, 32)
    assert changed.sum((1, 2)).tolist() == [64, 64]
    for image in changed:
        rows, columns = image.any(1), image.any(0)
        assert (rows.sum(), columns.sum()) == (8, 8)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_can_be_occluded(size: tuple[int, int], channels: int) -> None:
    x = torch.rand(8, channels, *size, generator=generator())
    damaged = occluded(x, x, generator())
    assert damaged.shape == x.shape
    assert bool(((damaged >= 0) & (damaged <= 1)).all())


def test_a_loss_by_hand() -> None:
    # The model sees two numbers of an image; their sum is taken out of its answer.
    x = torch.zeros(1, 1, 1, 2)
    x[..., 1] = 0.5

    def model(x: Tensor) -> Tensor:
        return 4 * x.flatten(1) + 7

    # One attacked image is too few to occlude. Zeros restored: answers 0 instead of -1, 1, so an
    # error of 1 relative to a size of 1, whose Huber loss is 0.5. Every second pixel is 127.5 off,
    # Huber loss 127, and pixels count 0.01.
    lesson = Lesson(x, x, attacked=x, model=model)
    assert GuidedDenoiser.recipe.loss(Zero(), lesson, generator()).item() == pytest.approx(
        0.5 + 0.635
    )
    assert GuidedDenoiser.recipe.loss(Same(), lesson, generator()).item() == 0


def test_a_benign_variation_is_to_be_left_alone() -> None:
    x = torch.rand(2, 1, 4, 4, generator=generator())
    lesson = Lesson(x, 1 - x, attacked=x, model=lambda x: x.flatten(1))
    assert GuidedDenoiser.recipe.loss(Same(), lesson, generator()).item() == 0


def test_a_model_is_needed() -> None:
    x = grey(2)
    with pytest.raises(PurifierError, match="local model"):
        GuidedDenoiser.recipe.loss(Same(), Lesson(x, x), generator())
