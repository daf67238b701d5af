from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detectors.base import Evidence
from detectors.benign import variations
from detectors.patch import Patch
from purifiers.localise import localise
from tests.images import benign


def patched(x: Tensor, seed: int = 5) -> Tensor:
    """A square of 1/16 of the area, at random, of random values."""
    generator = torch.Generator().manual_seed(seed)
    side = min(x.shape[2:]) // 4
    x = x.clone()
    for image in x:
        top, left = (
            int(torch.randint(s - side + 1, (), generator=generator)) for s in image.shape[1:]
        )
        content = torch.rand(len(image), side, side, generator=generator)
        image[:, top : top + side, left : left + side] = content
    return x


def test_the_score_is_the_strongest_evidence() -> None:
    x = patched(torch.from_numpy(benign(3, seed=1)))
    scores = Patch().score(Evidence(x))
    torch.testing.assert_close(scores, localise(x).flatten(1).max(dim=1).values)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 224)])
def test_sees_patches_and_no_benign_variation(channels: int, side: int) -> None:
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(20, channels, 6, 6, generator=generator)
    x = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    x = (x + 0.004 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    found = Patch().score(Evidence(patched(x)))
    for group, images in variations(x, generator).items():
        assert Patch().score(Evidence(images)).max() < found.min() - 1, group


def test_noise_all_over_is_no_patch() -> None:
    x = torch.rand(10, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    assert Patch().score(Evidence(x)).max() < 1


@pytest.mark.data
def test_patches_on_photographs(data_dir: Path) -> None:
    from loadtests.cifar import load_images

    x, _ = load_images(data_dir, "test", 300)
    groups = variations(x, torch.Generator().manual_seed(1))
    threshold = max(Patch().score(Evidence(v)).quantile(0.99).item() for v in groups.values())
    found = Patch().score(Evidence(patched(x)))
    assert (found > threshold).float().mean() > 0.95
