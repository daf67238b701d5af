from __future__ import annotations

import pytest
import torch

from detectors.benign import variations
from tuning.evaluate.unseen import out_of_distribution, unseen


def images(shape: tuple[int, ...]) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 255).round() / 255


@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (2, 1, 16, 24)])
def test_all_kinds_are_images_of_8_bits_by_their_seed(shape: tuple[int, ...]) -> None:
    x = images(shape)
    kinds = unseen(x, torch.Generator().manual_seed(2))
    again = unseen(x, torch.Generator().manual_seed(2))
    assert not set(kinds) & set(variations(x, torch.Generator()))
    for name, made in kinds.items():
        assert made.shape == x.shape, name
        assert made.equal(again[name]), name
        assert ((made * 255) - (made * 255).round()).abs().sum() < 1e-2 * max(1, made.numel())
        assert not len(x) or made.ne(x).any(), name


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_no_class(channels: int) -> None:
    x = images((6, channels, 20, 28))
    kinds = out_of_distribution(x, 4, torch.Generator().manual_seed(3))
    assert set(kinds) == {"dead_leaves", "texture", "gradient", "inverted"}
    for name, made in kinds.items():
        assert made.shape == (4, channels, 20, 28), name
        assert made.isfinite().all()
        assert made.flatten(1).std(1).min() > 0.01, name
    assert kinds["inverted"].add(x[:4]).sub(1).abs().max() < 1e-6
