"""Data files: `.npz` with inputs x and optional labels y.

Images are (N, C, H, W), uint8 or floats in [0, 1]; waveforms (N, T) or (N, C, T), int16 or floats
in [-1, 1]; vectors (N, D), any numbers.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from proxy.config import InputKind
from proxy.errors import ConfigError

_FORMS: dict[InputKind, str] = {
    "image": "(N, C, H, W) with C 1 or 3",
    "waveform": "(N, T) or (N, C, T)",
    "vector": "(N, D)",
}
_ARRAY = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Inputs in memory, with the digest of the file they came from."""

    x: Tensor
    """(N, C, H, W) float32 in [0, 1], (N, C, T) in [-1, 1] or (N, D)."""
    y: npt.NDArray[np.int64] | None
    sha256: str
    shape: tuple[int, ...] = ()
    """Of one sample in the file; empty where it is from none."""
    dtype: str = ""
    """Of the values in the file."""


def load(path: Path, kind: InputKind = "image") -> Dataset:
    """Read a data file.

    Args:
        kind: what it is to hold.

    Raises:
        ConfigError: it cannot be read, or is not of the form described above; says what it is.
    """
    try:
        blob = path.read_bytes()
        # From memory: the digest is of what was read, and np.load would take other kinds of file.
        with zipfile.ZipFile(io.BytesIO(blob)), np.load(io.BytesIO(blob)) as arrays:
            x = arrays["x"]
            y = arrays["y"].astype(np.int64) if "y" in arrays else None
    # What numpy and zipfile raise for damaged files is a long list, zlib.error among it.
    except Exception as error:
        raise ConfigError(
            f"{path}: not an .npz file with an array x {_FORMS[kind]}: {error}"
        ) from error
    if not _has_form(x.shape, kind) or 0 in x.shape:
        raise ConfigError(f"{path}: x has shape {x.shape}, expected {_FORMS[kind]}")
    if y is not None and y.shape != x.shape[:1]:
        raise ConfigError(f"{path}: y has shape {y.shape}, expected ({x.shape[0]},)")
    read = {"image": _pixels, "waveform": _waves, "vector": _rows}[kind]
    digest = hashlib.sha256(blob).hexdigest()
    return Dataset(read(path, x), y, digest, x.shape[1:], str(x.dtype))


def _has_form(shape: tuple[int, ...], kind: InputKind) -> bool:
    if kind == "image":
        return len(shape) == 4 and shape[1] in (1, 3)
    return len(shape) in ((2, 3) if kind == "waveform" else (2,))


def _pixels(path: Path, x: _ARRAY) -> Tensor:
    if x.dtype == np.uint8:
        return torch.from_numpy(x.astype(np.float32) / 255.0)
    # Written so that NaN fails too.
    if x.dtype.kind != "f" or not (x.min() >= 0 and x.max() <= 1):
        raise ConfigError(f"{path}: x must be uint8, or finite floats in [0, 1], not {x.dtype}")
    return torch.from_numpy(x.astype(np.float32))


def _waves(path: Path, x: _ARRAY) -> Tensor:
    waves = x if x.ndim == 3 else x[:, None]
    if x.dtype == np.int16:
        return torch.from_numpy(waves.astype(np.float32) / 32768.0)
    if x.dtype.kind != "f" or not (x.min() >= -1 and x.max() <= 1):
        raise ConfigError(f"{path}: x must be int16, or finite floats in [-1, 1], not {x.dtype}")
    return torch.from_numpy(waves.astype(np.float32))


def _rows(path: Path, x: _ARRAY) -> Tensor:
    with np.errstate(over="ignore"):  # told below
        rows = x.astype(np.float32) if x.dtype.kind in "fiub" else None
    if rows is None or not np.isfinite(rows).all():
        raise ConfigError(f"{path}: x must be numbers, finite as float32, not {x.dtype}")
    return torch.from_numpy(rows)
