from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purifiers.networks import Bottleneck, Unet
from purifiers.pieces import in_pieces

SIZES = [(1, 1), (3, 5), (8, 8), (17, 9), (28, 28), (33, 47)]


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def networks(channels: int) -> list[nn.Module]:
    """With weights in every layer."""
    torch.manual_seed(1)
    made = [Unet(channels, (8, 12, 16)), Bottleneck(channels, (4, 8, 12), 6)]
    for network in made:
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return made


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_comes_back(channels: int, size: tuple[int, int]) -> None:
    for network in networks(channels):
        for batch in (0, 2):
            x = images(batch, channels, *size)
            assert network(x).shape == x.shape


def test_an_untrained_unet_changes_nothing() -> None:
    x = images(2, 3, 13, 22)
    assert torch.equal(Unet(3, (8, 12))(x), x)


def test_an_untrained_bottleneck_returns_the_coarse_copy() -> None:
    x = images(2, 1, 16, 8)
    means = x.reshape(2, 1, 4, 4, 2, 4).mean((3, 5))  # of 4x4 pixels
    expected = F.interpolate(means, size=(16, 8), mode="bilinear")
    torch.testing.assert_close(Bottleneck(1, (4, 8, 12), 4)(x), expected)


def test_a_bottleneck_passes_nothing_that_its_code_does_not_hold() -> None:
    network = Bottleneck(3, (4, 8, 12), 5)
    x = images(1, 3, 16, 16)
    assert network.encode(images(1, 6, 16, 16)).shape == (1, 5, 4, 4)
    nn.init.zeros_(network.encode[-1].weight)
    # Without learned features two images with the same 4x4 means look the same.
    y = x.reshape(1, 3, 4, 4, 4, 4).flip(3, 5).reshape_as(x)
    nn.init.normal_(network.decode[-1].weight)
    torch.testing.assert_close(network(x), network(y))


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_has_a_gradient(size: tuple[int, int]) -> None:
    for network in networks(1):
        x = images(1, 1, *size).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).sum(), x)
        assert bool((gradient != 0).all())


def test_a_sample_is_judged_alone() -> None:
    for network in networks(3):
        x = images(4, 3, 15, 15)
        alone = torch.cat([network(sample[None]) for sample in x])
        torch.testing.assert_close(network(x), alone, atol=1e-5, rtol=1e-5)


def test_pieces_make_a_whole() -> None:
    network = networks(1)[0]
    x = images(5, 1, 160, 200)  # two at a time
    torch.testing.assert_close(in_pieces(network, x), network(x), atol=1e-5, rtol=1e-5)
    assert in_pieces(network, x[:0]).shape == (0, 1, 160, 200)
