from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import DetectorError
from detectors.perceptual_fingerprint import PerceptualFingerprint

KEY = b"0123456789abcdef"


def pictures(count: int, channels: int, side: int, seed: int) -> Tensor:
    """Patches of grey and some colour, large and small, with soft edges, on the 8-bit grid."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(count, channels, side, side)
    for cells in (2, 3, 5, 8, 12):
        coarse = torch.randn(count, channels, cells, cells, generator=generator)
        coarse = 0.7 * coarse.mean(1, keepdim=True) * channels**0.5 + 0.3 * coarse
        soft = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
        x = x + 0.2 * soft * (2 / cells) ** 0.3
    return quantised(0.5 + x)


def quantised(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round() / 255


def noise(x: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def shifted(x: Tensor, by: int) -> Tensor:
    """Moved right and down by so many pixels; the edge is repeated."""
    side = x.shape[3]
    return F.pad(x, (by, 0, by, 0), mode="replicate")[:, :, :side, :side]


def stripes(x: Tensor) -> Tensor:
    """Square's first step: a sign for each column and channel."""
    return quantised(x + 8 / 255 * noise(x[:, :, :1]).sign())


def recall(x: Tensor, changed: Tensor) -> float:
    """Share of the images that have a key in common with their changed copy."""
    perceptual = PerceptualFingerprint(KEY)
    ours, theirs = perceptual(x), perceptual(changed)
    return ((ours == theirs) & (ours != 0)).any(1).double().mean().item()


CHANGES = {
    "gaussian noise": lambda x: quantised(x + 8 / 255 * noise(x)),
    "sign noise": lambda x: quantised(x + 8 / 255 * noise(x).sign()),
    "stripes": stripes,
    "blur": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1),
    "brighter": lambda x: quantised(x + 0.15),
    "darker": lambda x: quantised(x * 0.85),
    "contrast": lambda x: quantised((x - 0.5) * 1.2 + 0.5),
    "shift": lambda x: shifted(x, x.shape[3] // 12),
    "shift, darker, sign noise": lambda x: quantised(
        0.9 * shifted(x, x.shape[3] // 16) + 8 / 255 * noise(x).sign()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 96)])
def test_changed_copies_are_recognised(change: str, channels: int, side: int) -> None:
    x = pictures(60, channels, side, 2)
    least = 0.4 if "shift" in change else 0.65  # sides of 28 and 96 are shifted by part of a place
    assert recall(x, CHANGES[change](x)) >= least


@pytest.mark.parametrize("channels", [1, 3])
def test_strangers_share_nothing(channels: int) -> None:
    x = pictures(300, channels, 32, 3)
    perceptual = PerceptualFingerprint(KEY)
    users = Counter(key for row in perceptual(x).tolist() for key in row)
    assert sum(count * (count - 1) // 2 for count in users.values()) <= 5  # of 45,000 pairs


def test_keys_are_secret() -> None:
    x = pictures(50, 3, 32, 4)
    ours, theirs = PerceptualFingerprint(KEY)(x), PerceptualFingerprint(KEY[::-1])(x)
    assert not set(ours.flatten().tolist()) & set(theirs.flatten().tolist())


def test_brightness_that_clips_nothing_changes_hardly_a_key() -> None:
    x = quantised(0.2 + 0.6 * pictures(50, 3, 32, 5))
    perceptual = PerceptualFingerprint(KEY)
    same = perceptual(x) == perceptual(x + 20 / 255)  # rounding on the way differs
    assert same.double().mean() > 0.8


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 120, 90), (4, 3, 2), (2, 1, 1), (12, 33, 40)]
)
def test_a_batch_is_its_samples(shape: tuple[int, int, int]) -> None:
    x = torch.rand(13, *shape, generator=torch.Generator().manual_seed(6))
    perceptual = PerceptualFingerprint(KEY)
    keys = perceptual(x)
    assert keys.shape == (13, 8)
    assert keys.dtype == torch.int64
    assert torch.equal(keys, torch.cat([perceptual(x[i : i + 1]) for i in range(13)]))
    assert torch.equal(keys, PerceptualFingerprint(KEY)(x.to(memory_format=torch.channels_last)))
    assert torch.equal(keys, perceptual(x.flip(0)).flip(0))


def test_the_largest_sums_are_exact() -> None:
    """Black and white at the finest grain and in halves: the same keys, however they are added."""
    rows, columns = torch.arange(32)[:, None], torch.arange(32)
    halves = (columns < 16).expand(32, 32)
    corner = (rows < 20) & (columns < 13)
    grey = torch.stack(((rows + columns) % 2 == 0, halves, halves.T, ~halves, corner, ~corner))
    extreme = grey.float()[:, None].repeat(8, 3, 1, 1)
    extreme[24:] *= torch.tensor([1.0, 0, 1]).view(3, 1, 1)
    perceptual = PerceptualFingerprint(KEY)
    keys = perceptual(extreme)
    assert torch.equal(keys, torch.cat([perceptual(one[None]) for one in extreme]))
    assert (keys[1:] != 0).any()


def test_what_shows_nothing_has_no_keys() -> None:
    flat = torch.tensor([0, 0.3, 1]).view(3, 1, 1, 1).expand(3, 3, 32, 32)
    perceptual = PerceptualFingerprint(KEY)
    assert not perceptual(flat).any()
    dithered = quantised(flat[1:2].clamp(0.1, 0.9) + 0.4 / 255 * noise(flat[1:2]))
    assert (perceptual(dithered) == 0).sum() >= 7
    assert not perceptual(torch.full((1, 3, 8, 8), float("nan"))).any()


def test_numbers_that_are_none_do_no_harm() -> None:
    x = pictures(3, 3, 32, 8)
    broken, mended = x.clone(), x.clone()
    broken[1, :, 3, 3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    mended[1, :, 3, 3] = torch.tensor([0.0, 1.0, 0.0])
    perceptual = PerceptualFingerprint(KEY)
    assert torch.equal(perceptual(broken), perceptual(mended))


def test_no_images_have_no_keys() -> None:
    assert PerceptualFingerprint(KEY, keys=3)(torch.empty(0, 3, 32, 32)).shape == (0, 3)


def test_inputs_are_left_alone() -> None:
    x = pictures(2, 3, 32, 9)
    before = x.clone()
    PerceptualFingerprint(KEY)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("options", [{"key": b"short"}, {"keys": 0}, {"keys": 65}])
def test_refuses_what_it_cannot_do(options: dict[str, object]) -> None:
    with pytest.raises(DetectorError):
        PerceptualFingerprint(**{"key": KEY, **options})  # type: ignore[arg-type]


@pytest.mark.gpu
def test_keys_on_a_gpu_are_the_same() -> None:
    for x in (pictures(100, 3, 32, 10), pictures(20, 1, 28, 10), pictures(4, 3, 224, 10)):
        perceptual = PerceptualFingerprint(KEY)
        assert torch.equal(perceptual(x), perceptual(x.cuda()).cpu())


@pytest.mark.data
def test_photographs_are_told_from_strangers(data_dir: Path) -> None:
    from loadtests.cifar import load_images

    x, _ = load_images(data_dir, "test", 1000)
    users = Counter(key for row in PerceptualFingerprint(KEY)(x).tolist() for key in row if key)
    meetings = sum(count * (count - 1) // 2 for count in users.values())
    assert meetings / (1000 * 999 / 2) < 5e-5
    least = {"stripes": 0.75, "blur": 0.85, "shift": 0.9, "shift, darker, sign noise": 0.6}
    for change, share in least.items():
        assert recall(x[:200], CHANGES[change](x[:200])) > share, change
