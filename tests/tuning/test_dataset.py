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


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.bool_])
def test_vectors_are_any_numbers(file: Path, dtype: Any) -> None:
    x = np.array([[0, 1], [2, -3]]).astype(dtype)
    found = load(save(file, x=x, y=np.array([1, 0])), "vector")
    assert found.x.dtype == torch.float32
    assert found.x.tolist() == x.tolist()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X, r"x has shape \(4, 3, 5, 6\), expected \(N, D\)"),
        (np.zeros((3, 0)), r"expected \(N, D\)"),
        (np.array([[1, np.nan]]), "must be numbers, finite as float32, not float64"),
        (np.array([[1, 1e39]]), "must be numbers, finite as float32"),
        (np.array([["a"]]), "must be numbers, finite as float32"),
        (np.array([[1j]]), "must be numbers, finite as float32, not complex128"),
    ],
)
def test_what_are_no_vectors(file: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(save(file, x=x), "vector")


@pytest.mark.parametrize("shape", [(2, 6), (2, 1, 6), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_waveforms_have_channels_and_full_scale(file: Path, shape: Any, dtype: Any) -> None:
    x = np.linspace(-1, 1, 12).reshape(shape)
    stored = (x * 32767).round().astype(np.int16) if dtype == np.int16 else x.astype(dtype)
    found = load(save(file, x=stored), "waveform")
    assert found.x.shape == (shape if len(shape) == 3 else (2, 1, 6))
    assert found.x.dtype == torch.float32
    assert np.abs(found.x.numpy().ravel() - x.ravel()).max() < 2**-14


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X, r"expected \(N, T\) or \(N, C, T\)"),
        (np.full((2, 3), 1.5), r"int16, or finite floats in \[-1, 1\], not float64"),
        (np.full((2, 3), np.nan), "finite floats"),
        (np.zeros((2, 3), np.int32), "not int32"),
    ],
)
def test_what_are_no_waveforms(file: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(save(file, x=x), "waveform")


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
