"""Which scores are kept: a bottom-k sketch, a uniform sample over the distinct ones seen.

Of all distinct score vectors those with the smallest keyed hashes are kept. What comes twice hashes
alike, so that a flood of copies changes nothing; without the key nobody can choose inputs that
stay. Sketches with one key can be merged: the smallest hashes of all are those of the union.

Source: Cohen and Kaplan, Summarizing data using bottom-k sketches, PODC 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16
HASH_BITS = 53
"""As many as every reader of JSON keeps; two of 20,000 among a billion samples rarely agree."""
SHARE = 4
"""One principal keeps a quarter of the places at most where others want them."""

Hashes = npt.NDArray[np.uint64]
Names = npt.NDArray[np.uint32]


class Keyed:
    """Hashes under one secret.

    Args:
        key: `KEY_BYTES` bytes, equal in all workers whose sketches are to be merged.
    """

    def __init__(self, key: bytes) -> None:
        self._scores = blake2b(digest_size=8, key=key, person=b"scores")
        self._names = blake2b(digest_size=4, key=key, person=b"principal")

    def scores(self, values: Sequence[float]) -> int:
        """The hash of raw scores, which are alike to five significant digits, 0..2**53-1."""
        state = self._scores.copy()
        state.update((b"%.4e " * len(values)) % tuple(values))
        return int.from_bytes(state.digest(), "big") >> (64 - HASH_BITS)

    def principal(self, name: str) -> int:
        """Stands for a principal, 32 bits."""
        state = self._names.copy()
        state.update(name.encode(errors="replace"))
        return int.from_bytes(state.digest(), "big")


def most_per_principal(capacity: int) -> int:
    """Places one principal may keep where others want them."""
    return max(1, capacity // SHARE)


def surplus(hashes: Hashes, principals: Names, capacity: int) -> npt.NDArray[np.intp]:
    """Positions of what must go for the rest to be `capacity` at most.

    First goes what a principal has over its share, largest hashes first, then the largest hashes of
    all. Of each principal the smallest stay: what is kept of a stream is what would be kept of its
    whole at once, so sketches can be merged.

    Args:
        hashes: (N,), distinct.
        principals: (N,), whose each is.
    """
    extra = len(hashes) - capacity
    if extra <= 0:
        return np.empty(0, np.intp)
    share = most_per_principal(capacity)
    over = np.zeros(len(hashes), np.bool_)
    names, counts = np.unique(principals, return_counts=True)
    for name in names[counts > share]:
        own = np.flatnonzero(principals == name)
        over[own[np.argsort(hashes[own])[share:]]] = True
    # What is over a share counts as larger than any hash of what is not.
    rank = hashes + (over.astype(np.uint64) << np.uint64(HASH_BITS))
    return np.argpartition(rank, len(rank) - extra)[-extra:]
