from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import DetectorError
from detectors.content_fingerprint import ContentFingerprint, spacing
from detectors.salted import drawn, mixed

KEY = b"0123456789abcdef"


def pictures(count: int, channels: int, side: int, seed: int) -> Tensor:
    """Smooth random pictures with some texture, on the 8-bit grid."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 7, 7, generator=generator) * 1.6 - 0.3
    x = F.interpolate(coarse, size=(side, side), mode="bilinear")
    x = x + 0.02 * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round() / 255


def noisy(x: Tensor, levels: float, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = x + levels / 255 * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round() / 255


def shared(a: Tensor, b: Tensor) -> Tensor:
    """How many keys the images of two batches have in common, pair by pair."""
    same = (a[:, :, None] == b[:, None, :]) & (a != 0)[:, :, None]
    return same.any(2).sum(1).double()


def by_hand(x: Tensor, window: int, step: int) -> list[int]:
    """The hash of every window of one small image, flat or not, in plain integers."""
    levels = (x[0] * 255).round().long().permute(1, 2, 0).flatten().tolist()
    blocks, block = len(levels) // step, min(window, step)
    name = f"content/{blocks}x{block}"
    offsets = (drawn(KEY, f"{name}/offsets", blocks * block) & 255).tolist()
    factors = (drawn(KEY, f"{name}/factors", blocks * block) | 1).tolist()
    positions = drawn(KEY, f"{name}/positions", blocks).tolist()
    hashes = []
    for first in range(0, len(levels) - window + 1, step):
        total = positions[first // step]
        for at in range(first, first + window):
            cell = (levels[at] + offsets[at]) % 256 * 5 // 256
            total += cell * factors[at]
        signed = (total + 2**63) % 2**64 - 2**63
        hashes.append(int(mixed(torch.tensor(signed))))
    return hashes


@pytest.mark.parametrize(("window", "step"), [(6, 1), (6, 3), (6, 6)])
def test_keys_are_the_largest_hashes_of_windows(window: int, step: int) -> None:
    x = (torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(1)) * 255).round() / 255
    content = ContentFingerprint(KEY, keys=4, windows=(window, step))
    assert content(x)[0].tolist() == sorted(by_hand(x, window, step), reverse=True)[:4]


def reference(x: Tensor, keys: int = 16) -> Tensor:
    """Blacklight with SHA-256: cells moved by secret offsets, all windows hashed, the top kept."""
    offsets = np.random.default_rng(7).integers(0, 256, x[0].numel())
    levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).flatten(1).numpy()
    rows = []
    for row in ((levels + offsets) % 256 * 5 // 256).astype(np.uint8):
        windows = (row[at : at + 20].tobytes() for at in range(len(row) - 19))
        digests = {hashlib.sha256(KEY + bytes(window)).digest()[:8] for window in windows}
        top = sorted(int.from_bytes(digest, "big", signed=True) for digest in digests)[-keys:]
        rows.append(top)
    return torch.tensor(rows)


@pytest.mark.parametrize("levels", [0.5, 2, 6])
def test_shares_as_many_keys_as_sha256_would(levels: float) -> None:
    x = pictures(50, 3, 20, 2)
    content = ContentFingerprint(KEY)
    ours = shared(content(x), content(noisy(x, levels)))
    theirs = shared(reference(x), reference(noisy(x, levels)))
    standard_error = ((ours.var() + theirs.var()) / len(x)).sqrt()
    assert (ours.mean() - theirs.mean()).abs() < 4 * standard_error + 0.3


def test_a_changed_area_costs_its_share_of_the_keys() -> None:
    x = pictures(200, 3, 32, 3)
    changed = x.clone()
    changed[:, :, :16] = 1 - changed[:, :, :16]  # the upper half
    content = ContentFingerprint(KEY)
    # Of the 8 or so from the lower half, those that make it into both samples.
    assert 6 < shared(content(x), content(changed)).mean() < 8


def test_strangers_and_other_keys_share_nothing() -> None:
    x = pictures(200, 3, 32, 4)
    content = ContentFingerprint(KEY)
    assert shared(content(x), content(x.roll(1, 0))).sum() == 0
    assert shared(content(x), ContentFingerprint(KEY[::-1])(x)).sum() == 0
    assert shared(content(x), content(x)).min() == 16


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 120, 90), (4, 3, 2)])
def test_a_batch_is_its_samples(shape: tuple[int, int, int]) -> None:
    x = torch.rand(7, *shape, generator=torch.Generator().manual_seed(6))
    content = ContentFingerprint(KEY)
    keys = content(x)
    assert keys.shape == (7, 16)
    assert keys.dtype == torch.int64
    assert torch.equal(keys, torch.cat([content(x[i : i + 1]) for i in range(7)]))
    assert torch.equal(keys, ContentFingerprint(KEY)(x.double().float().contiguous()))
    assert torch.equal(keys, content(x.flip(0)).flip(0))
    assert (keys != 0).any(1).all()


def test_large_batches_are_their_samples() -> None:
    x = pictures(9, 3, 224, 8)  # more than the CPU takes at once
    content = ContentFingerprint(KEY)
    assert torch.equal(content(x), torch.cat([content(x[i : i + 1]) for i in range(9)]))


def test_only_8_bit_content_counts() -> None:
    x = pictures(5, 3, 32, 9)
    content = ContentFingerprint(KEY)
    assert torch.equal(content(x), content(x + 0.4 / 255))
    assert torch.equal(content(x), content(x.to(memory_format=torch.channels_last)))


def test_flat_images_have_no_keys() -> None:
    x = torch.full((3, 3, 32, 32), 0.7)
    x[1, :, 10:14, 10:14] = 0  # a spot: as many windows as it touches
    x[2, :, :, 16:] = 0.72
    keys = ContentFingerprint(KEY)(x)
    assert (keys != 0).any(1).tolist() == [False, True, False]


def test_numbers_that_are_none_do_no_harm() -> None:
    x = pictures(3, 3, 32, 10)
    broken = x.clone()
    broken[1, :, 3, 3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    mended = x.clone()
    mended[1, :, 3, 3] = torch.tensor([0.0, 1.0, 0.0])
    content = ContentFingerprint(KEY)
    assert torch.equal(content(broken), content(mended))
    assert content(torch.full((1, 3, 8, 8), float("nan"))).tolist() == [[0] * 16]


def test_no_images_have_no_keys() -> None:
    assert ContentFingerprint(KEY)(torch.empty(0, 3, 32, 32)).shape == (0, 16)


def test_inputs_are_left_alone() -> None:
    x = pictures(2, 3, 32, 11)
    before = x.clone()
    ContentFingerprint(KEY)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("side", [1, 2, 8, 28, 32, 73, 74, 100, 224, 299, 512, 1024, 4000])
def test_windows_are_bounded(side: int) -> None:
    size = 3 * side * side
    window, step = spacing(size)
    assert size // step <= 16_384
    assert step > window or window % step == 0


@pytest.mark.parametrize(
    "options",
    [
        {"key": b"short"},
        {"keys": 0},
        {"cells": 1},
        {"windows": (20, 3)},
        {"windows": (20, 0)},
    ],
)
def test_refuses_what_it_cannot_do(options: dict[str, object]) -> None:
    with pytest.raises(DetectorError):
        ContentFingerprint(**{"key": KEY, **options})  # type: ignore[arg-type]


@pytest.mark.gpu
def test_keys_on_a_gpu_are_the_same() -> None:
    for x in (pictures(40, 3, 32, 12), pictures(4, 3, 224, 12)):
        content = ContentFingerprint(KEY)
        assert torch.equal(content(x), content(x.cuda()).cpu())


@pytest.mark.data
def test_photographs_of_strangers_share_hardly_a_key(data_dir: Path) -> None:
    from loadtests.cifar import load_images

    x, _ = load_images(data_dir, "test", 1000)
    content = ContentFingerprint(KEY)
    keys = content(x)
    users = Counter(key for row in keys.tolist() for key in row if key)
    meetings = sum(count * (count - 1) // 2 for count in users.values())
    assert meetings / (1000 * 999 / 2) < 2e-4
    assert shared(keys[:300], content(noisy(x[:300], 1))).mean() > 9
