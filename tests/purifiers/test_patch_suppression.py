from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from purifiers import PurifierError
from purifiers.patch_suppression import PatchSuppression
from tests.images import benign


def ramps(channels: int, side: int) -> Tensor:
    """Two images that grow evenly to the right, and down."""
    line = torch.linspace(0.2, 0.8, side).expand(channels, side, side)
    return torch.stack((line, line.transpose(1, 2)))


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("channels", "side", "at"), [(3, 32, 9), (1, 28, 0), (3, 224, 100)])
def test_paints_a_patch_over(channels: int, side: int, at: int) -> None:
    x = ramps(channels, side)
    size = side // 4
    place = (slice(None), slice(None), slice(at, at + size), slice(at, at + size))
    attacked = x.clone()
    attacked[place] = noise(2, channels, size, size)
    error = (PatchSuppression().purify(attacked) - x).abs()
    assert error[place].mean() < 0.4 * (attacked - x).abs()[place].mean()
    assert (error > 0).flatten(2).float().mean() < 2 / 16  # the patch, and a rim about it


def test_images_without_a_patch_are_returned_as_they_are() -> None:
    x = torch.cat((torch.from_numpy(benign(50, seed=1)), noise(10, 3, 32, 32)))
    assert torch.equal(PatchSuppression().purify(x), x)


def test_only_the_patched_image_changes() -> None:
    x = torch.from_numpy(benign(3, seed=2))
    x[1, :, 5:13, 8:16] = noise(3, 8, 8)
    purified = PatchSuppression().purify(x)
    assert torch.equal(purified[[0, 2]], x[[0, 2]])
    assert not torch.equal(purified[1], x[1])


def test_a_threshold_beyond_all_evidence_does_nothing() -> None:
    x = ramps(3, 32)
    x[..., :8, :8] = noise(2, 3, 8, 8)
    assert torch.equal(PatchSuppression(threshold=20).purify(x), x)


def test_gradients_pass_around_the_patch() -> None:
    x = ramps(3, 32)
    x[..., :8, :8] = noise(2, 3, 8, 8)
    x.requires_grad_()
    PatchSuppression().purify(x, gradients=True).sum().backward()
    assert x.grad is not None
    assert not x.grad[..., 2:6, 2:6].any()  # painted over: what was there has no say
    assert bool((x.grad[..., 20:, 20:] == 1).all())


@pytest.mark.parametrize("threshold", [0, -1, float("nan"), float("inf"), "3"])
def test_threshold_out_of_range(threshold: object) -> None:
    with pytest.raises(PurifierError, match="threshold must be > 0"):
        PatchSuppression(threshold)  # type: ignore[arg-type]


@pytest.mark.data
def test_keeps_answers_on_photographs(data_dir: Path) -> None:
    from loadtests.cifar import load_images, load_model

    x, y = load_images(data_dir, "test", 300)
    model = load_model(data_dir)
    attacked = x.clone()
    attacked[:, :, 3:11, 3:11] = noise(300, 3, 8, 8).round()
    purifier = PatchSuppression()
    with torch.no_grad():
        before, broken, after = (
            (model(images).argmax(1) == y).float().mean()
            for images in (x, attacked, purifier.purify(attacked))
        )
    assert torch.equal(purifier.purify(x), x)
    assert broken < before - 0.1
    assert after > before - 0.05
