"""From what a store has found to the chains that queries continue. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors import chains, steps
from proxy.history.fingerprints import CONTENT, PERCEPTUAL, Prints
from proxy.history.store import Found

_CONTENT_BITS = np.uint64((1 << CONTENT) - 1)
_LOOKS_BITS = np.uint64(((1 << PERCEPTUAL) - 1) << CONTENT)
_REACH = 4 * steps.MOST
"""Samples of a request that one is compared with, those just before it: batches can be large."""
_MOST_ROWS = 64
"""Samples of a request that are linked; it takes up to half a millisecond each."""


@dataclass(frozen=True, slots=True)
class Linked:
    """The records of B queries, each with the statistics of the chain it continues."""

    records: npt.NDArray[np.void]
    """(B,) `detectors.chains.RECORD`."""
    repeats: npt.NDArray[np.bool_]
    """(B,) exact repeats: remembered already."""


def link(
    prints: Prints,
    *,
    owner: int,
    now: float,
    found: Sequence[Found],
    trail: npt.NDArray[np.int16] | None = None,
    pardoned: float = 0.0,
) -> Linked:
    """Link the samples of one request to earlier queries, and to each other.

    Args:
        prints: of the samples.
        owner: who asks.
        now: seconds, equal on all replicas.
        found: what stores and epochs know; the same earlier query may be in several.
        trail: (T, D) the owner's latest queries in their order; None for who asked nothing yet.
        pardoned: what this owner asked until then is not held against it.
    """
    records = chains.begun(prints.sketch, prints.digest, prints.anomaly, owner=owner, time=now)
    repeats = np.zeros(len(records), np.bool_)
    before = _before(prints)
    newcomer = trail is None
    trail = prints.sketch[:0] if trail is None else trail
    met = np.unique(np.concatenate([np.array(list(before), np.intp), *(f.rows for f in found)]))
    for row in _some(met.tolist()):
        query = chains.Query(
            prints.sketch[row], int(prints.digest[row]), owner, float(prints.anomaly[row]), now
        )
        earlier, others = _earlier(query, row, found, pardoned)
        if row in before:  # samples of one request may be one attack's
            own = before[row]
            earlier = np.concatenate((earlier, records[own][~repeats[own]]))
        if not len(earlier) and len(others) > 1:
            between = chains.searched(query, others)
            earlier, others = others[between], others[~between]
        if len(earlier):
            walked = np.concatenate((trail, prints.sketch[:row]))[-steps.TRAIL :]
            records[row] = chains.follow(query, earlier, others, walked, newcomer=newcomer)
            repeats[row] = bool((earlier["digest"] == query.digest).any())
    return Linked(records, repeats)


def _some(rows: list[int]) -> list[int]:
    """The rows that are linked: of very many the first and the last, so that none waits long."""
    return rows if len(rows) <= _MOST_ROWS else rows[: _MOST_ROWS // 2] + rows[-_MOST_ROWS // 2 :]


def _earlier(
    query: chains.Query, row: int, found: Sequence[Found], pardoned: float
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """The earlier queries this one follows on, and others of the same owner; each once."""
    parts, alike = [], []
    for each in found:
        mine = each.rows == row
        if mine.any():
            bits = each.shared[mine]
            counts = np.stack((_ones(bits & _CONTENT_BITS), _ones(bits & _LOOKS_BITS)), axis=1)
            records = each.records[mine]
            same = records["digest"] == query.digest
            parts.append(records)
            alike.append(same | chains.linked(query.sketch, records, counts))
    if not parts:
        return np.zeros(0, chains.RECORD), np.zeros(0, chains.RECORD)
    every, linked = np.concatenate(parts), np.concatenate(alike)
    held = (every["owner"] != query.owner) | (every["time"] > pardoned)
    every, linked = every[held], linked[held]
    # The same query from two stores and under two salts; where one has it as alike, it is.
    order = np.argsort(~linked, kind="stable")
    _, first = np.unique(every[order][["digest", "time"]], return_index=True)
    once = order[np.sort(first)]
    return every[once][linked[once]], every[once][~linked[once]]


def _ones(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    return np.array([int(each).bit_count() for each in bits.tolist()], np.intp)


def _before(prints: Prints) -> dict[int, npt.NDArray[np.intp]]:
    """The samples of the same request that each follows on, for those that do."""
    count = len(prints.sketch)
    alike = np.zeros((count, min(_REACH, count)), np.bool_)  # column d: the one d + 1 before
    for lag in range(1, min(_REACH, count - 1) + 1):
        alike[lag:, lag - 1] = steps.near(prints.sketch[lag:], prints.sketch[:-lag])
    keys = prints.keys[0, :, :-1]  # they may have the owner in common
    for row in _some(np.flatnonzero(_sharing_a_key(keys)).tolist()):
        first = max(0, row - _REACH)
        for other in first + np.flatnonzero(_shares(keys[first:row], keys[row])):
            alike[row, row - other - 1] = True
    rows = np.flatnonzero(alike.any(axis=1))
    return {row: row - 1 - np.flatnonzero(alike[row])[::-1] for row in rows.tolist()}


def _sharing_a_key(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which of B rows share a key with another, (B,)."""
    if len(keys) == 1:
        return np.zeros(1, np.bool_)
    values, where, counts = np.unique(keys, return_inverse=True, return_counts=True)
    often = (counts > 1) & (values != 0)
    shared: npt.NDArray[np.bool_] = often[where].reshape(keys.shape).any(axis=1)
    return shared


def _shares(others: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    used = keys[keys != 0]
    shared: npt.NDArray[np.bool_] = np.isin(others, used).any(axis=1)
    return shared
