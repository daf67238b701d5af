from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from purifiers import Jpeg, PurifierError


def smooth_image(channels: int, height: int, width: int) -> Tensor:
    """A picture-like test image on the 8-bit grid: gradients, an edge and mild noise."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    rows = torch.linspace(0, 1, height)[:, None]
    columns = torch.linspace(0, 1, width)[None]
    planes = [
        0.5 + 0.3 * torch.sin(3 * rows + c) * torch.cos(4 * columns - c) for c in range(channels)
    ]
    x = torch.stack(planes)
    x[:, height // 3 : height // 2] += 0.2
    x = x + 0.02 * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round()[None] / 255


def through_libjpeg(x: Tensor, quality: int, subsample: bool) -> Tensor:
    pixels = (x[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    image.save(file, "JPEG", quality=quality, subsampling=2 if subsample else 0)
    decoded = np.asarray(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(decoded.copy()).permute(2, 0, 1).float()[None] / 255


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 100])
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 29, 27), (1, 28, 28), (3, 64, 48)])
def test_close_to_libjpeg(quality: int, subsample: bool, shape: tuple[int, int, int]) -> None:
    x = smooth_image(*shape)
    ours = Jpeg(quality=quality, subsample=subsample).purify(x)
    libjpeg = through_libjpeg(x, quality, subsample)
    # libjpeg computes in integers: a coefficient on the edge of a step may fall the other way.
    assert (ours - libjpeg).abs().mean() * 255 < 1.2
    loss = (libjpeg - x).abs().mean()
    assert (ours - libjpeg).abs().mean() < max(0.5 * loss, 1 / 255)


@pytest.mark.parametrize("quality", [10, 75, 95])
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("shape", [(3, 192, 192), (3, 203, 245), (1, 224, 224)])
def test_large_images_go_through_libjpeg_itself(
    quality: int, subsample: bool, shape: tuple[int, int, int]
) -> None:
    x = smooth_image(*shape)
    purifier = Jpeg(quality=quality, subsample=subsample)
    ours = purifier.purify(x)
    assert torch.equal(ours, through_libjpeg(x, quality, subsample))
    assert ours.is_contiguous()
    # The way that has gradients leaves much the same image.
    smooth = purifier.purify(x.requires_grad_(), gradients=True)
    assert (smooth - ours).abs().mean() * 255 < 1.2
    smooth.sum().backward()


def test_libjpeg_takes_batches_and_any_number_of_channels() -> None:
    x = torch.cat([smooth_image(5, 200, 192), smooth_image(5, 200, 192).flip(3)])
    purifier = Jpeg(quality=40)
    one_by_one = [purifier.purify(sample[:, c : c + 1]) for sample in x.split(1) for c in range(5)]
    assert torch.equal(purifier.purify(x), torch.cat(one_by_one).view(x.shape))
    colour = x[:, :3]
    alone = torch.cat([purifier.purify(sample) for sample in colour.split(1)])
    assert torch.equal(purifier.purify(colour), alone)


def test_gradients_after_use_without() -> None:
    x = smooth_image(3, 16, 16)
    purifier = Jpeg()
    purifier.purify(x)
    purifier.purify(x.requires_grad_(), gradients=True).sum().backward()


def test_single_blocks_are_close_to_libjpeg() -> None:
    images = [smooth_image(1, 8, 8).roll(shift, 3) * 0.9 for shift in range(8)]
    images = [(x * 255).round() / 255 for x in images]
    ours = torch.cat([Jpeg(quality=30).purify(x) for x in images])
    libjpeg = torch.cat([through_libjpeg(x, 30, False) for x in images])
    # Most blocks agree but for output rounding; one with a coefficient on an edge may not.
    assert (ours - libjpeg).abs().mean((1, 2, 3)).median() * 255 < 0.6


def test_a_flat_block_is_rounded_to_the_step_of_its_mean() -> None:
    # DC = 8 * (value - 128); at quality 50 its step is 16, so values move in steps of 2 from 128.
    x = torch.full((1, 1, 8, 8), 133 / 255)  # 8 * 5 / 16 = 2.5, away from zero: 3 -> 134
    torch.testing.assert_close(Jpeg(quality=50).purify(x), torch.full_like(x, 134 / 255))


def test_one_coefficient_by_hand() -> None:
    # A pure horizontal cosine of frequency 1 and DCT amplitude 100; quality 50 step 11 -> 9 * 11.
    wave = torch.cos(math.pi * (2 * torch.arange(8.0) + 1) / 16) / 2 / math.sqrt(8)
    x = (128 + 100 * wave.expand(8, 8)).view(1, 1, 8, 8) / 255
    expected = (128 + 99 * wave.expand(8, 8)).view(1, 1, 8, 8) / 255
    torch.testing.assert_close(Jpeg(quality=50).purify(x), expected, atol=1e-5, rtol=0)


def test_quality_orders_the_loss() -> None:
    x = smooth_image(3, 32, 32)
    losses = [(Jpeg(quality=q).purify(x) - x).abs().mean().item() for q in (10, 50, 90)]
    assert losses == sorted(losses, reverse=True)


def test_five_channels_are_coded_one_by_one() -> None:
    x = smooth_image(5, 16, 16)
    purifier = Jpeg(quality=40)
    expected = torch.cat([purifier.purify(x[:, c : c + 1]) for c in range(5)], dim=1)
    torch.testing.assert_close(purifier.purify(x), expected)


@pytest.mark.parametrize("quality", [0, 101, 75.5, "high"])
def test_quality_out_of_range(quality: object) -> None:
    with pytest.raises(PurifierError, match="quality must be 1 to 100"):
        Jpeg(quality=quality)  # type: ignore[arg-type]


def test_subsample_must_be_a_truth_value() -> None:
    with pytest.raises(PurifierError, match="subsample"):
        Jpeg(subsample="4:2:0")  # type: ignore[arg-type]
