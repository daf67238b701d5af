"""What remembering queries in Redis costs: bytes for each, and time, from 10,000 queries on.

A real redis-server on loopback is filled by one replica with queries of 24 keys and records of 180
bytes from 200 owners; then another looks up batches of 32. Bytes are what the server's
`used_memory` grew by. Time is the whole round trip as a request sees it; beside it the processor
time it takes of the replica's event loop and of the server.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import redis

from loadtests.harness import Report, Row, cpu_s, options, warn_if_busy
from loadtests.query_attacks.redis_server import RedisServer
from proxy.history.access import Access
from proxy.history.shared import SharedStore
from proxy.history.store import MOST

SIZES = (10_000, 100_000)
LARGE = 1_000_000
RECORD = np.dtype([("state", "u1", 180)])
KEYS = 24
BATCH = 32
OWNERS = 200
ROUNDS = 500
WARM = 50
"""Rounds before those that are timed."""
AT_ONCE = 2_048
"""Queries that wait to be told while it is filled."""
FAMILIES = 12
"""Batches that are asked again and again."""
SEED = 4
BYTES_GOAL, ROUND_TRIP_GOAL = "<= 1000", "<= 3"

Words = npt.NDArray[np.uint64]


def _drawn(*of: int, count: int = BATCH) -> Words:
    """Keys of queries, the same whenever the same ones are asked for."""
    drawn: Words = np.random.default_rng([SEED, *of]).integers(
        1, 2**64, (count, KEYS), dtype=np.uint64
    )
    return drawn


def _owners(count: int) -> Words:
    return np.random.default_rng(SEED).integers(1, 1 + OWNERS, count, dtype=np.uint64)


def _store(server: RedisServer, reasons: Counter[str]) -> SharedStore:
    return SharedStore(
        Access(server.url),
        "resnet20.1",
        RECORD,
        ttl_s=3600,
        timeout_s=1.0,  # to see how long it takes, not whether it is in time
        capacity=2 * LARGE,
        per_owner_minute=10 * LARGE,
        on_degraded=lambda reason: reasons.update([reason]),
    )


async def _told(store: SharedStore) -> None:
    while store.queued:  # noqa: ASYNC110 (the server empties it)
        await asyncio.sleep(0.005)


async def _fill(store: SharedStore, queries: range) -> None:
    """Remember these queries, counted in the order in which they are drawn."""
    for first in range(queries.start, queries.stop, AT_ONCE):
        keys = _drawn(0, first // AT_ONCE, count=AT_ONCE)[: queries.stop - first]
        store.remember(keys, _owners(len(keys)), np.ones(len(keys), RECORD))
        await _told(store)


def _strangers(turn: int, count: int) -> Words:
    return _drawn(1, turn)


def _acquaintances(turn: int, count: int) -> Words:
    """Each query shares three keys with each of eight remembered ones."""
    block = _drawn(0, turn % (count // AT_ONCE), count=AT_ONCE)
    chosen = np.random.default_rng([SEED, 2, turn]).integers(0, AT_ONCE, (BATCH, MOST))
    parts = block.reshape(AT_ONCE, MOST, KEYS // MOST)
    drawn: Words = parts[chosen, np.arange(MOST)].reshape(BATCH, KEYS)
    return drawn


def _siblings(turn: int, count: int) -> Words:
    """Each query shares all its keys with eight, once these were remembered so often."""
    return _drawn(3, turn % FAMILIES)


async def _looked_up(store: SharedStore, server: RedisServer, batches: Sequence[Words]) -> Row:
    owners, times, found = _owners(BATCH), [], 0
    before_s = cpu_s(server.pid)
    for keys in batches:
        wall, cpu = time.perf_counter(), time.thread_time()
        earlier = await store.lookup(keys, owners)
        times.append((time.perf_counter() - wall, time.thread_time() - cpu))
        found += len(earlier.rows)
    server_ms = 1e3 * (cpu_s(server.pid) - before_s) / len(batches)
    wall_ms, cpu_ms = 1e3 * np.array(times[WARM:]).T
    return {
        "found_per_query": round(found / (BATCH * len(batches)), 2),
        "p50_ms": round(float(np.median(wall_ms)), 3),
        "p99_ms": round(float(np.percentile(wall_ms, 99)), 3),
        "cpu_p50_ms": round(float(np.median(cpu_ms)), 3),
        "cpu_p99_ms": round(float(np.percentile(cpu_ms, 99)), 3),
        "server_cpu_ms": round(server_ms, 2),
    }


def _used(server: RedisServer) -> int:
    with redis.Redis(port=server.port) as client:
        return int(client.info("memory")["used_memory"])


OPERATIONS: dict[str, Callable[[int, int], Words]] = {
    "look up strangers": _strangers,
    "look up acquaintances": _acquaintances,
    "look up siblings": _siblings,
}


async def _rows(server: RedisServer, sizes: Sequence[int], rounds: int) -> list[Row]:
    reasons: Counter[str] = Counter()
    writer, reader = _store(server, reasons), _store(server, reasons)
    rows: list[Row] = []
    await writer.start()
    await reader.start()
    empty, done, siblings = _used(server), 0, 0
    for size in sizes:
        started_s = time.monotonic()
        await _fill(writer, range(done, size))
        filled_s = time.monotonic() - started_s
        grown = _used(server) - empty
        rows.append(
            {
                "remembered": size + siblings,
                "mib": round(grown / 2**20, 1),
                "bytes_per_query": round(grown / (size + siblings), 1),
                "remembered_per_s": round((size - done) / filled_s),
            }
        )
        done = size - size % AT_ONCE  # blocks are drawn whole
        for _ in range(MOST):
            for family in range(FAMILIES):
                keys = _siblings(family, 0)
                writer.remember(keys, _owners(BATCH), np.ones(BATCH, RECORD))
            await _told(writer)
        siblings += MOST * FAMILIES * BATCH
        for operation, draw in OPERATIONS.items():
            batches = [draw(turn, size) for turn in range(WARM + rounds)]
            spread = await _looked_up(reader, server, batches)
            rows.append({"operation": operation, "remembered": size, **spread})
    await writer.close()
    await reader.close()
    if reasons:
        raise RuntimeError(f"Redis did not answer as it should: {dict(reasons)}")
    return rows


def measure(sizes: Sequence[int] = SIZES, *, rounds: int = ROUNDS) -> list[Row]:
    """Rows of two kinds, of one server filled to each of these sizes.

    Returns:
        `bytes_per_query` where so many are `remembered`; then `p50_ms`, `p99_ms` and the event
        loop's processor time `cpu_p50_ms`, `cpu_p99_ms` and the server's mean `server_cpu_ms` of
        looking up 32 queries: strangers share no key with any; acquaintances share 3 keys with
        each of 8; siblings share all with 8.

    Raises:
        RedisUnavailable: there is no redis-server on this machine.
    """
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        return asyncio.run(_rows(server, sizes, rounds))


def judge(report: Report, rows: Sequence[Row]) -> None:
    """Append the figures that have a goal."""
    for row in rows:
        size = int(row["remembered"] or 0)
        if "operation" in row:
            name = f"p99 to {row['operation']} in Redis, ms"
            report.figure(name, float(row["p99_ms"] or 0), ROUND_TRIP_GOAL, remembered=size)
        else:
            each = float(row["bytes_per_query"] or 0)
            report.figure("bytes a query in Redis", each, BYTES_GOAL, remembered=size)


def main() -> int:
    """Run it on its own; 1 when a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--large", action="store_true", help=f"also with {LARGE:,} queries")
    chosen = parser.parse_args()
    warn_if_busy()
    sizes = SIZES[:1] if chosen.quick else (*SIZES, LARGE) if chosen.large else SIZES
    rows = measure(sizes, rounds=100 if chosen.quick else ROUNDS)
    report = Report("Remembering in Redis, 32 queries of 24 keys a batch", list(rows))
    judge(report, rows)
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
