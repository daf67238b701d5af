"""Data files: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxy.errors import ConfigError
from tuning.dataset import load

X = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


def save(file: Path, **arrays: Any) -> Path:
    np.savez_compressed(file, **arrays)
    return file


@pytest.mark.parametrize("x", [X, X.astype(np.float32) / 255, X.astype(np.float64) / 255])
def test_pixels_become_floats_from_0_to_1(file: Path, x: np.ndarray) -> None:
    found = load(save(file, x=x))
    assert found.x.dtype == torch.float32
    assert torch.allclose(found.x, torch.from_numpy(X / 255).float())
    assert found.y is None


def test_labels_and_digest(file: Path) -> None:
    found = load(save(file, x=X[:, :1], y=np.array([3, 1, 2, 0], np.uint8)))
    assert found.y is not None
    assert (found.y.dtype, found.y.tolist()) == (np.int64, [3, 1, 2, 0])
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": X}, "not an .npz file with an array x"),
        ({"x": X[0]}, r"x has shape \(3, 5, 6\), expected \(N, C, H, W\)"),
        ({"x": X[:, :2]}, "with C 1 or 3"),
        ({"x": X[:0]}, r"x has shape \(0, 3, 5, 6\)"),
        ({"x": X.astype(np.float32)}, "x must be uint8, or finite floats"),
        ({"x": X.astype(np.int64)}, "finite floats in .*, not int64"),
        ({"x": X / -255}, "finite floats"),
        ({"x": np.full((1, 1, 2, 2), np.nan)}, "finite floats"),
        ({"x": np.full((1, 1, 2, 2), "a")}, "finite floats"),
        ({"x": X, "y": np.zeros(3, int)}, r"y has shape \(3,\), expected \(4,\)"),
        ({"x": X, "y": np.array(["a"] * 4)}, "not an .npz file"),
    ],
)
def test_wrong_arrays_are_told(file: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load(save(file, **arrays))
    assert str(file) in str(error.value)


def test_objects_are_never_unpickled(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"not an \.npz file"):
        load(save(file, x=np.array([[[[{}]]]], object)))


def test_files_of_other_kinds_are_told(file: Path) -> None:
    whole = save(file, x=X).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in (b"", b"PK\x03\x04", b"x,y\n1,2\n", whole[:-9], whole[9:], bytes(flipped)):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"not an \.npz file with an array x"):
            load(file)
    np.save(file.with_suffix(".npy"), X)
    for path in (file.with_suffix(".npy"), file.with_name("nowhere.npz"), file.parent):
        with pytest.raises(ConfigError, match=r"not an \.npz file with an array x"):
            load(path)
