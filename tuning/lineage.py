"""Finds out what is in a data file: copies, odd samples, class balance; and what to warn of.

The cost is bounded: every sample is hashed and summed up once; near copies are looked for from a
random part of the samples, in thumbnails.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from proxy import __version__
from proxy.config import InputKind
from proxy.lineage import EXAMPLES, LISTED, LONGEST, NOT_STATED, Classes, Finding, Lineage
from tuning.dataset import Dataset

_ASKED, _AGAINST = 2_000, 50_000
"""Samples whose neighbours are looked for, and among how many: two seconds on one processor."""
_PART = 250
_SIDE = 16
_PIECES = 64
_NEAR: dict[InputKind, tuple[float, str]] = {
    "image": (
        # Of 20,000 CIFAR-10 images and 1,797 digits no two are within 10/255; copies under JPEG at
        # quality 75, noise of 8/255 or 5 % more brightness mostly are within 8/255.
        8 / 255,
        f"thumbnails of {_SIDE}x{_SIDE} pixels differ by at most 8/255 (root mean square)",
    ),
    "waveform": (
        0.02,
        f"loudness over time, in {_PIECES} pieces, differs by at most 2 % of the mean (root mean "
        "square)",
    ),
    "vector": (
        0.01,
        "features differ by at most 1 % of their interquartile range (root mean square)",
    ),
}
_FAR = 6.0
"""Robust deviations: farther lies one in 20,000 of CIFAR-10, and none of the digits."""


FINGERPRINTS = 20_000
"""Samples of which it is kept that they were calibrated on, at most: 160 KB."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a person says of data; empty where nothing was said."""

    source: str = ""
    """Where it is from; else the file's name stands for it."""
    licence: str = ""
    """Under which terms it may be used."""


def describe(
    data: Path,
    found: Dataset,
    *,
    kind: InputKind = "image",
    origin: Origin | None = None,
    seed: int = 0,
) -> Lineage:
    """Look at a data file.

    Args:
        data: the file, for its name.
        found: what was read from it.
        kind: what it holds.
        origin: what a person says of it.
        seed: of the samples that near copies are looked for from.
    """
    said = origin or Origin()
    first = _first_seen(found.x)
    distinct = np.unique(first)
    copies = np.flatnonzero(first != np.arange(len(first)))
    near, effective = _near(found.x, distinct, kind, np.random.default_rng(seed))
    flat = found.x.flatten(1)
    # A sample of one value is not called constant.
    constant = np.flatnonzero(((flat.amax(1) == flat.amin(1)) & (flat.shape[1] > 1)).numpy())
    return Lineage(
        sha256=found.sha256,
        source=_line(said.source or data.name),
        licence=_line(said.licence or NOT_STATED),
        kind=kind,
        samples=len(found.x),
        shape=found.shape or tuple(found.x.shape[1:]),
        dtype=found.dtype or str(found.x.dtype).removeprefix("torch."),
        classes=None if found.y is None else _classes(found.y),
        duplicates=_finding(copies, len(first), "equal to an earlier sample, value by value"),
        near_duplicates=near,
        effective=effective,
        constant=_finding(constant, len(first), "all values the same"),
        outliers=_outliers(found.x, kind),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"breakwater": __version__, "torch": torch.__version__, "numpy": np.__version__},
    )


def _line(text: str) -> str:
    """One line that no terminal acts on; file names may hold anything."""
    return "".join(c if c.isprintable() else " " for c in text)[:LONGEST]


def _finding(places: npt.ArrayLike, looked_at: int, how: str) -> Finding:
    found = np.asarray(places, dtype=np.int64)
    examples = tuple(int(place) for place in found[:EXAMPLES])
    return Finding(count=len(found), looked_at=looked_at, how=how, examples=examples)


def fingerprints(*sets: Tensor, kind: InputKind = "image") -> Tensor:
    """What tells whether a sample is among others, without the others: 64 bits of each.

    Whoever has a sample can tell whether it is in a set, so they are no secret.

    Args:
        sets: samples, (N, ...); images count as equal where 8 bits do not tell them apart.

    Returns:
        Ascending, without duplicates, (n,) int64; of many the `FINGERPRINTS` smallest, which are a
        random part, and the same part of every set.
    """
    found = []
    for x in sets:
        rows = x.flatten(1).numpy()
        if kind == "image":
            rows = np.rint(255 * rows).astype(np.uint8)
        told = (hashlib.blake2b((r + 0).data, digest_size=8).digest() for r in rows)  # -0 is 0
        found += [int.from_bytes(each, "big", signed=True) for each in told]
    return torch.tensor(sorted(set(found))[:FINGERPRINTS], dtype=torch.int64)


def _first_seen(x: Tensor) -> npt.NDArray[np.int64]:
    """For each sample the position of the first one that equals it."""
    seen: dict[bytes, int] = {}
    rows = np.ascontiguousarray(x.flatten(1).numpy()) + np.float32(0)  # -0 is 0
    digests = (hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    return np.array([seen.setdefault(digest, i) for i, digest in enumerate(digests)])


def _near(
    x: Tensor, distinct: npt.NDArray[np.int64], kind: InputKind, draw: np.random.Generator
) -> tuple[Finding, int]:
    """Near copies among samples that differ, and how many samples are left without copies."""
    among = distinct
    if len(among) > _AGAINST:
        among = np.sort(draw.choice(among, _AGAINST, replace=False))
    asked = np.sort(draw.choice(len(among), min(_ASKED, len(among)), replace=False))
    bound, how = _NEAR[kind]
    small = _thumbnails(x, among, kind)
    counts = torch.cat([_within(small[part], small, bound) for part in _parts(asked)]).numpy()
    others = np.maximum(counts - 1, 0)  # each is near itself
    order = np.argsort(-others, kind="stable")
    places = among[asked[order[others[order] > 0]]]
    if len(asked) < len(distinct):
        how += f"; {len(asked)} samples drawn at random against {len(among)}"
    # Of a cluster of k each counts 1/k.
    effective = round(len(distinct) * float((1 / (1 + others)).mean()))
    return _finding(places, len(asked), how), max(1, effective)


def _parts(asked: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [asked[start : start + _PART] for start in range(0, len(asked), _PART)]


def _within(some: Tensor, every: Tensor, bound: float) -> Tensor:
    """How many of all rows lie within a distance of each of some, (S,)."""
    far = torch.cdist(some, every, compute_mode="use_mm_for_euclid_dist")
    return (far <= bound * math.sqrt(every.shape[1])).sum(1)


def _thumbnails(x: Tensor, chosen: npt.NDArray[np.int64], kind: InputKind) -> Tensor:
    """What stands for each of some samples when they are compared, (n, values)."""
    shrink: dict[InputKind, Callable[[Tensor], Tensor]] = {
        "image": _small_image,
        "waveform": _loudness,
        "vector": lambda rows: rows,
    }
    parts = [shrink[kind](x[torch.from_numpy(part)]).flatten(1) for part in _parts(chosen)]
    small = torch.cat(parts).float()
    return _standardised(small) if kind == "vector" else small


def _small_image(x: Tensor) -> Tensor:
    height, width = (min(side, _SIDE) for side in x.shape[2:])
    small: Tensor = F.adaptive_avg_pool2d(x, (height, width))
    return small


def _loudness(x: Tensor) -> Tensor:
    pieces: Tensor = F.adaptive_avg_pool1d(x.square(), min(_PIECES, x.shape[-1])).sqrt()
    return pieces / pieces.mean((1, 2), keepdim=True).clamp_min(1e-6)


def _standardised(rows: Tensor) -> Tensor:
    values = rows.double().numpy()
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    spread = np.where(high > low, high - low, values.std(0))
    return torch.from_numpy((values - middle) / np.where(spread > 0, spread, 1)).float()


def _outliers(x: Tensor, kind: InputKind) -> Finding:
    """Samples far from the median in one of a few statistics, farthest first."""
    statistics = {"image": _of_pixels, "waveform": _of_pixels, "vector": _of_row}[kind]
    told = torch.cat([statistics(part) for part in x.split(_PART)]).double().numpy()
    if kind == "vector":
        told = np.abs(_standardised(torch.from_numpy(told)).double().numpy()).mean(1, keepdims=True)
    middle = np.median(told, axis=0)
    spread = 1.4826 * np.median(np.abs(told - middle), axis=0)
    # Where most are equal to each other, what differs at all is not far by that alone.
    far = (np.abs(told - middle) / np.maximum(spread, 0.01)).max(1)
    order = np.argsort(-far, kind="stable")
    named = "mean distance of the features" if kind == "vector" else "mean, spread or roughness"
    how = f"{named} over {_FAR:g} robust standard deviations from the median"
    return _finding(order[far[order] > _FAR], len(x), how)


def _of_pixels(x: Tensor) -> Tensor:
    """Mean, and the logarithms of spread and roughness, (n, 3)."""
    flat = x.flatten(1)
    rough = x.diff(dim=-1).abs().flatten(1).mean(1) if x.shape[-1] > 1 else torch.zeros(len(x))
    spread = flat.std(1, correction=0)
    # A level of 8 bits: less than that is nothing.
    logs = torch.stack([spread, rough]).add(1 / 255).log()
    return torch.cat([flat.mean(1)[:, None], logs.T], dim=1)


def _of_row(x: Tensor) -> Tensor:
    return x


def _classes(y: npt.NDArray[np.int64]) -> Classes:
    labels, counts = np.unique(y, return_counts=True)
    shares = counts / counts.sum()
    order = np.argsort(-counts, kind="stable")[:LISTED]
    return Classes(
        count=len(labels),
        smallest=int(counts.min()),
        largest=int(counts.max()),
        effective=float(np.exp(-(shares * np.log(shares)).sum())),
        samples={str(labels[i]): int(counts[i]) for i in order},
    )
