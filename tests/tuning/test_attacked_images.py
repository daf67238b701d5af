from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.images import benign
from tests.learning import DigitsLike
from tuning.attacked_images import Attacked, make, needed

X = torch.from_numpy(benign(100, seed=3))


def made(path: Path, *, stop_after: int | None = None, seed: int = 0, **about: Any) -> Attacked:
    told: list[int] = []
    return make(
        DigitsLike().requires_grad_(False),
        X,
        192,
        path,
        about=about,
        seed=seed,
        device=torch.device("cpu"),
        on_progress=told.append,
        is_stopped=lambda: told[-1] == stop_after,
    )


def test_every_image_is_attacked_before_any_is_again(tmp_path: Path) -> None:
    attacked = made(tmp_path / "a")
    assert sorted(attacked.of[:100].tolist()) == list(range(100))
    assert attacked.pixels.shape == (192, 3, 32, 32)
    change = (attacked.at(torch.arange(192)) - X[attacked.of]).abs().flatten(1).amax(1)
    assert 0 < change.min() < 9 / 255


def test_interrupted_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = made(tmp_path / "a", model="m")
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "b", model="m", stop_after=128)
    resumed = made(tmp_path / "b", model="m")
    assert torch.equal(whole.pixels, resumed.pixels)
    assert torch.equal(whole.of, resumed.of)


def test_what_is_there_is_used_only_for_the_same(tmp_path: Path) -> None:
    first = made(tmp_path / "a", model="m")
    assert torch.equal(first.pixels, made(tmp_path / "a", model="m", stop_after=64).pixels)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "a", model="other", stop_after=64)
    (tmp_path / "a").write_bytes(b"no")
    assert torch.equal(first.pixels, made(tmp_path / "a", model="m").pixels)
    assert not torch.equal(first.pixels, made(tmp_path / "c", seed=1).pixels)


def test_how_many() -> None:
    assert needed((3, 32, 32), draws=10) == 64
    assert needed((3, 32, 32), draws=1000) == 960
    assert needed((3, 32, 32), draws=10**6) == 8192
    assert needed((3, 224, 224), draws=10**6) == 1728  # 27 blocks of 64 in 256 MiB
