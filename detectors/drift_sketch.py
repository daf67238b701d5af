"""Counts of what was seen in a window of traffic, by signal and block: bounded and mergeable.

A block is a part of the traffic that is independent of other blocks: a principal, or where one
principal is a gateway for many, a stretch of its traffic. There is a fixed number of blocks; a
secret key says which one a principal is counted in, so that nobody's name is kept and nobody can
choose to be counted with somebody else. Principals that meet in one block only make fewer of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.drift_reference import Reference

BLOCKS = 256
"""Blocks of a sketch."""
_MOST = 2**32 - 1


class SketchError(ValueError):
    """Counts that are not of this reference, or damaged."""


def block_of(principal: str, key: bytes, stretch: int = 0) -> int:
    """The block a principal is counted in, 0 to `BLOCKS` - 1.

    Args:
        principal: who asks.
        key: a secret of up to 64 bytes, the same wherever sketches are to be merged.
        stretch: 0 where principals are independent of each other and each is one block. Where one
            principal is a gateway for many, and there are too few principals to compare, the number
            of the stretch of traffic, e.g. of the minute: stretches then count as independent.
    """
    text = f"{stretch}:{principal}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8, key=key[:64]).digest()
    return int.from_bytes(digest, "big") % BLOCKS


class Sketch:
    """Counts by signal, block and bin. Not safe for two threads at once.

    Args:
        reference: says what bins there are. Takes 4 bytes a bin and block: 32 kB an ordered signal,
            about half a megabyte for sixteen (`size`).
    """

    def __init__(self, reference: Reference) -> None:
        self._signals = reference.signals
        self.counts: dict[str, npt.NDArray[np.uint32]] = {
            name: np.zeros((BLOCKS, signal.bins), dtype=np.uint32)
            for name, signal in reference.signals.items()
        }
        self.total = 0
        self.by_stretch = False
        """Set where any block is a stretch of a principal's traffic: `compare` then asks first
        whether stretches may count as independent."""

    @property
    def size(self) -> int:
        """Bytes of counts; it never changes."""
        return sum(each.nbytes for each in self.counts.values())

    def add(self, blocks: npt.ArrayLike, signals: Mapping[str, npt.ArrayLike]) -> None:
        """Count samples.

        Args:
            blocks: (B,) of `block_of`, or one for all samples.
            signals: name -> (B,) values: scores and statistics as they are, the top class for
                "classes", 1 or True for suspicious ones for "verdict". Signals may be missing, and
                those the reference does not know are left out, as are values that are not finite.

        Raises:
            SketchError: not as many blocks as values, or no such block.
        """
        keys = np.asarray(blocks, dtype=np.int64)
        if keys.size and (keys.min() < 0 or keys.max() >= BLOCKS):
            raise SketchError(f"blocks are numbered 0 to {BLOCKS - 1}")
        most = 0
        for name, values in signals.items():
            if name not in self._signals:
                continue
            at = self._signals[name].place(values)
            if keys.ndim and keys.shape != at.shape:
                raise SketchError(f"{len(keys)} blocks for {at.shape} values of {name}")
            block = np.broadcast_to(keys, at.shape)[at >= 0]
            np.add.at(self.counts[name], (block, at[at >= 0]), 1)
            most = max(most, at.size)
        self.total += most

    def merge(self, other: Sketch) -> None:
        """Add another sketch's counts; of the same reference and with the same key.

        Raises:
            SketchError: its signals or bins are others.
        """
        if {n: c.shape for n, c in self.counts.items()} != {
            n: c.shape for n, c in other.counts.items()
        }:
            raise SketchError("the sketches are of different references")
        for name, counts in other.counts.items():
            summed = self.counts[name].astype(np.uint64) + counts
            self.counts[name] = np.minimum(summed, _MOST).astype(np.uint32)
        self.total += other.total
        self.by_stretch |= other.by_stretch

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: a few kB, since most counts of a short window are 0."""
        return {
            "total": self.total,
            "by_stretch": self.by_stretch,
            "counts": {
                name: base64.b64encode(zlib.compress(counts.astype("<u4").tobytes(), 1)).decode()
                for name, counts in self.counts.items()
            },
        }

    @classmethod
    def from_json(cls, reference: Reference, data: Mapping[str, Any]) -> Sketch:
        """Restore a sketch.

        Raises:
            SketchError: it is damaged or of another reference.
        """
        sketch = cls(reference)
        try:
            if set(data["counts"]) != set(sketch.counts):
                raise SketchError("the counts are of another reference")
            for name, empty in sketch.counts.items():
                sketch.counts[name] = _unpacked(data["counts"][name], empty)
            sketch.total = int(data["total"])
            sketch.by_stretch = bool(data["by_stretch"])
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise SketchError(f"damaged counts: {error}") from error
        return sketch


def _unpacked(text: str, empty: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SketchError(f"damaged counts: {error}") from error
    raw = zlib.decompressobj().decompress(packed, empty.nbytes + 1)  # never more than it should be
    if len(raw) != empty.nbytes:
        raise SketchError(f"{len(raw)} bytes of counts, not {empty.nbytes}")
    return np.frombuffer(raw, dtype="<u4").astype(np.uint32).reshape(empty.shape)
