"""What remembering queries in process costs: bytes for each, and time, from 10,000 to 1,000,000.

Each store is filled to its capacity with queries of 24 keys and records of 180 bytes from 200
owners; then batches of 32 are looked up, and remembered in place of others. Bytes are what the
process grew by. Processor time is told beside the time on the wall, since other programs on the
machine disturb only the latter.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loadtests.harness import Report, Row, options, resident_bytes, warn_if_busy
from proxy.history.local import LocalStore
from proxy.history.store import MOST

SIZES = (10_000, 100_000, 1_000_000)
RECORD = np.dtype([("state", "u1", 180)])
KEYS = 24
BATCH = 32
OWNERS = 200
ROUNDS = 500
WARM = 50
"""Rounds before those that are timed."""
FAMILIES = 12
"""Batches that are asked again and again."""
SEED = 4

Words = npt.NDArray[np.uint64]


def _drawn(*of: int) -> Words:
    """Keys of a batch of queries, the same whenever the same batch is asked for."""
    return np.random.default_rng([SEED, *of]).integers(1, 2**64, (BATCH, KEYS), dtype=np.uint64)


def _owners(*of: int) -> Words:
    return np.random.default_rng([SEED, *of]).integers(1, 1 + OWNERS, BATCH, dtype=np.uint64)


def _store(capacity: int) -> LocalStore:
    return LocalStore(capacity, RECORD, KEYS, ttl_s=3600.0, salt=SEED)


def _fill(store: LocalStore, queries: range) -> None:
    """Remember these queries, counted in the order in which they are drawn."""
    records = np.ones(BATCH, RECORD)
    for first in range(queries.start, queries.stop, BATCH):
        batch, rows = first // BATCH, slice(min(BATCH, queries.stop - first))
        store.remember(_drawn(0, batch)[rows], _owners(0, batch)[rows], records[rows])


def _strangers(turn: int) -> Words:
    return _drawn(1, turn)


def _acquaintances(turn: int, count: int) -> Words:
    """Each query shares three keys with each of eight remembered ones, all of them at random."""
    chosen = np.random.default_rng([SEED, 2, turn]).integers(0, count // BATCH, (MOST, BATCH))
    keys = np.empty((BATCH, KEYS), np.uint64)
    each = KEYS // MOST
    for i, batches in enumerate(chosen):
        for row, batch in enumerate(batches):
            keys[row, each * i : each * (i + 1)] = _drawn(0, int(batch))[row, :each]
    return keys


def _spread(times: Sequence[tuple[float, float]]) -> Row:
    wall, cpu = 1e3 * np.array(times[WARM:]).T
    return {
        "p50_ms": round(float(np.median(wall)), 3),
        "p99_ms": round(float(np.percentile(wall, 99)), 3),
        "cpu_p50_ms": round(float(np.median(cpu)), 3),
        "cpu_p99_ms": round(float(np.percentile(cpu, 99)), 3),
    }


async def _looked_up(store: LocalStore, batches: Sequence[Words]) -> Row:
    owners = _owners(4)
    times, found = [], 0
    for keys in batches:
        wall, cpu = time.perf_counter(), time.thread_time()
        earlier = await store.lookup(keys, owners)
        times.append((time.perf_counter() - wall, time.thread_time() - cpu))
        found += len(earlier.rows)
    return {"found_per_query": round(found / (BATCH * len(batches)), 2), **_spread(times)}


def _remembered(store: LocalStore, batches: Sequence[Words]) -> Row:
    records, owners = np.ones(BATCH, RECORD), _owners(5)
    times = []
    for keys in batches:
        wall, cpu = time.perf_counter(), time.thread_time()
        store.remember(keys, owners, records)
        times.append((time.perf_counter() - wall, time.thread_time() - cpu))
    return {"found_per_query": None, **_spread(times)}


def _filled(capacity: int) -> tuple[LocalStore, list[Row]]:
    """A full store, and what it took on the way."""
    before = resident_bytes(os.getpid())
    store = _store(capacity)
    rows: list[Row] = []
    done = 0
    for stop in (0, capacity // 100, capacity // 10, capacity // 2, capacity):
        stop -= stop % BATCH if stop < capacity else 0
        _fill(store, range(done, stop))
        done = stop
        grown = resident_bytes(os.getpid()) - before
        each = round(grown / stop, 1) if stop else None
        mib = round(grown / 2**20, 2)
        rows.append({"capacity": capacity, "remembered": stop, "mib": mib, "bytes_per_query": each})
    return store, rows


async def _rows(capacity: int, rounds: int) -> list[Row]:
    store, rows = _filled(capacity)
    turns = range(WARM + rounds)

    def add(operation: str, spread: Row) -> None:
        rows.append({"operation": operation, "remembered": capacity, **spread})

    add("look up strangers", await _looked_up(store, [_strangers(turn) for turn in turns]))
    acquaintances = [_acquaintances(turn, capacity) for turn in turns]
    add("look up acquaintances", await _looked_up(store, acquaintances))
    add("remember strangers", _remembered(store, [_drawn(6, turn) for turn in turns]))
    families = [_drawn(3, family) for family in range(FAMILIES)]
    repeated = [families[turn % FAMILIES] for turn in range(FAMILIES * (MOST + 1) + len(turns))]
    add("remember siblings", _remembered(store, repeated))
    add("look up siblings", await _looked_up(store, repeated[: len(turns)]))
    return rows


def measure(sizes: Sequence[int] = SIZES, *, rounds: int = ROUNDS) -> list[Row]:
    """Rows of two kinds, of stores of each of these sizes.

    Returns:
        `bytes_per_query` where `remembered` of a `capacity` are kept; then `p50_ms`, `p99_ms` and
        the processor's `cpu_p50_ms`, `cpu_p99_ms` of an `operation` on 32 queries: strangers share
        no key with any; acquaintances share 3 keys with each of 8 remembered at random; siblings
        share all their keys with 8.
    """
    _fill(_store(1024), range(1024))  # what the first calls of all allocate is not the store's
    return [row for size in sizes for row in asyncio.run(_rows(size, rounds))]


def judge(report: Report, rows: Sequence[Row]) -> None:
    """Append the figures that have a goal."""
    for row in rows:
        size = int(row["remembered"] or 0)
        if "operation" in row:
            name = f"p50 to {row['operation']}, ms"
            report.figure(name, float(row["p50_ms"] or 0), "<= 1", remembered=size)
        elif size == row["capacity"]:
            each = float(row["bytes_per_query"] or 0)
            report.figure("bytes a query in process", each, "<= 500", remembered=size)


def main() -> int:
    """Run it on its own; 1 when a goal was missed."""
    chosen = options(__doc__).parse_args()
    warn_if_busy()
    rows = measure(SIZES[:2] if chosen.quick else SIZES, rounds=100 if chosen.quick else ROUNDS)
    report = Report("Remembering in process, 32 queries of 24 keys a batch", list(rows))
    judge(report, rows)
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
