"""Data files: `.npz` with x (N, C, H, W), uint8 or float32 in [0, 1], and optional labels y."""

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

from proxy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images in memory, with the digest of the file they came from."""

    x: Tensor
    """(N, C, H, W) float32 in [0, 1]."""
    y: npt.NDArray[np.int64] | None
    sha256: str


def load(path: Path) -> Dataset:
    """Read a data file.

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
            f"{path}: not an .npz file with an array x (N, C, H, W): {error}"
        ) from error
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
        raise ConfigError(f"{path}: x has shape {x.shape}, expected (N, C, H, W) with C 1 or 3")
    if y is not None and y.shape != x.shape[:1]:
        raise ConfigError(f"{path}: y has shape {y.shape}, expected ({x.shape[0]},)")
    return Dataset(_pixels(path, x), y, hashlib.sha256(blob).hexdigest())


def _pixels(path: Path, x: npt.NDArray[np.generic]) -> Tensor:
    if x.dtype == np.uint8:
        return torch.from_numpy(x.astype(np.float32) / 255.0)
    # Written so that NaN fails too.
    if x.dtype.kind != "f" or not (x.min() >= 0 and x.max() <= 1):
        raise ConfigError(f"{path}: x must be uint8, or finite floats in [0, 1], not {x.dtype}")
    return torch.from_numpy(x.astype(np.float32))
