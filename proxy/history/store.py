"""What a store of remembered queries can do, wherever it keeps them. Never pixels.

A query is remembered under a handful of keys (salted hashes of its content) with one small record
of fixed size, opaque to the store. An earlier query is found when it shares a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
"""(B, K) a row for each query; at most 64 keys, none of them 0 but for keys that are not used."""
Owners = npt.NDArray[np.uint64]
"""(B,) who asked: a salted hash of the principal."""
Handles = npt.NDArray[np.uint64]
"""(B,) what `amend` needs to find a remembered query again."""
Records = npt.NDArray[np.void]
"""(B,) of the structured type the store was made for, without padding and Python objects."""

MOST = 8
"""Most earlier queries found for one: those that share most keys, the newest of equals first."""


@dataclass(frozen=True, slots=True)
class Found:
    """Earlier queries that share keys with the B queries looked up; flat, M in all."""

    rows: npt.NDArray[np.intp]
    """(M,) which of the B queries each belongs to, ascending; at most `MOST` of each."""
    shared: npt.NDArray[np.uint64]
    """(M,) bit k is set where key k of the query is one of the earlier query's keys."""
    records: Records
    """(M,) the earlier queries' records."""
    marks: npt.NDArray[np.float64]
    """(B,) the mark on each query's owner (`mark`), 0 where there is none."""


class FingerprintStore(Protocol):
    """Remembers queries, bounded in number and age."""

    async def lookup(self, keys: Keys, owners: Owners) -> Found:
        """Earlier queries that share keys with these; remembers nothing.

        A key leads to the `MOST` newest queries that have it, so that what everybody asks costs no
        more than what nobody asks; `shared` lacks a key that as many newer queries have.

        Never raises for a store that cannot be reached: it then finds nothing.
        """

    def remember(self, keys: Keys, owners: Owners, records: Records) -> Handles:
        """Remember queries. Returns at once; a store elsewhere is told in the background.

        Nobody shall push out what others asked by asking much: a store in process drops the oldest
        queries of whoever fills most of it, a shared one thins out who asks more than so many a
        minute. A query without keys is not kept.
        """

    def amend(self, handles: Handles, records: Records) -> None:
        """Replace the records of remembered queries; those forgotten since stay forgotten."""

    def mark(self, owner: int, value: float, ttl_s: float) -> None:
        """Put a mark on an owner that every replica sees, for so many seconds; 0 removes it."""

    async def clear(self) -> None:
        """Forget everything."""
