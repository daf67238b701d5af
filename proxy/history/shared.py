"""Remembered queries in Redis or Valkey, shared by all replicas. Never pixels.

A lookup waits a few milliseconds at most and then finds nothing; everything else is told in the
background. While the server is away nothing waits at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from proxy.history.access import Access
from proxy.history.keyspace import Keyspace
from proxy.history.link import Link
from proxy.history.lookups import Lookups
from proxy.history.store import Found, Handles, Keys, Owners, Records
from proxy.history.write_behind import WriteBehind
from proxy.tasks import Tasks

REASONS = ("timeout", "unreachable", "error", "full", "out_of_memory")
"""Why a lookup found nothing or something was not remembered: no answer in time; no connection;
the server refused; too much waits to be told; the server's memory is full."""

_DRAIN_S = 0.25
_ANYBODY = (np.zeros((1, 1), np.uint64), np.zeros(1, np.uint64))  # a query without keys


class SharedStore:
    """A `FingerprintStore` in Redis or Valkey, from version 5 on.

    Lookups of one turn of the event loop travel together. One key leads to the eight newest
    queries that have it.

    A query is remembered for `ttl_s` by the replicas' clocks, which must agree about that well.
    Beyond `capacity` the oldest go. Unlike a store in one process this one does not look whose
    they are; instead an owner's queries are thinned out past `per_owner_minute`.

    All keys begin with `bw:{NAMESPACE}:`, the namespace URL-quoted. An ACL needs `~bw:*` and
    `+evalsha +eval +hmget +mget` to look up, and to remember and forget
    `+hget +hset +hincrby +hdel +set +expire +exists +unlink +scan`.

    Args:
        access: where the server is and what opens it.
        namespace: what is shared only under the same one: the model and the salt's number.
        record: type of the records, without padding. What was remembered with another one, such
            as another version's, is not found.
        ttl_s: seconds a query is remembered.
        timeout_s: seconds a lookup waits at most.
        capacity: most queries remembered at a time.
        per_owner_minute: most queries remembered of one owner a minute; past it one in 16 is.
        most_queued: most entries that wait to be told to the server; the oldest are given up.
        on_degraded: told one of `REASONS` for each lookup that found nothing because of it, and
            each time something was not remembered.
        clock: seconds since 1970.

    Raises:
        ConfigError: the address is none.
    """

    def __init__(
        self,
        access: Access,
        namespace: str,
        record: np.dtype[np.void],
        *,
        ttl_s: int,
        timeout_s: float = 0.002,
        capacity: int = 1_000_000,
        per_owner_minute: int = 6_000,
        most_queued: int = 4_096,
        on_degraded: Callable[[str], None] = lambda reason: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keyspace = Keyspace(namespace, record, ttl_s=ttl_s)
        self._clock = clock
        # What is probed is what a lookup needs: the same script and the same rights.
        self._link = Link(access, probe=lambda: self._lookups.look(*_ANYBODY), prompt_s=timeout_s)
        self._lookups = Lookups(
            self._link, self._keyspace, timeout_s=timeout_s, on_degraded=on_degraded, clock=clock
        )
        self._behind = WriteBehind(
            self._link,
            self._keyspace,
            clock=clock,
            capacity=capacity,
            per_owner_minute=per_owner_minute,
            most_queued=most_queued,
            on_degraded=on_degraded,
        )
        self._tasks = Tasks()

    @property
    def down(self) -> str | None:
        """Why lookups find nothing at present; None while they are answered."""
        return None if self._link.up.is_set() else self._link.reason

    @property
    def queued(self) -> int:
        """Entries the server has not been told yet."""
        return self._behind.queued

    async def start(self) -> None:
        """Connect; a server that is not there is tried again in the background."""
        self._tasks.start(self._behind.run())
        await self._link.start()

    async def close(self) -> None:
        """Tell what waits if that is quick, and disconnect."""
        await self._behind.drain(_DRAIN_S)
        await self._tasks.stop()
        await self._lookups.close()
        await self._link.close()

    async def lookup(self, keys: Keys, owners: Owners) -> Found:
        """Earlier queries of all replicas that share keys with these; nothing if it takes long."""
        return await self._lookups.find(keys, owners)

    def remember(self, keys: Keys, owners: Owners, records: Records) -> Handles:
        """Remember queries, a few milliseconds from now."""
        return self._behind.remember(keys, owners, records)

    def amend(self, handles: Handles, records: Records) -> None:
        """Replace records of queries this store remembered, a few milliseconds from now."""
        self._behind.amend(handles, records)

    def mark(self, owner: int, value: float, ttl_s: float) -> None:
        """Put a mark on an owner, a few milliseconds from now."""
        self._behind.mark(owner, value, ttl_s)

    async def clear(self) -> None:
        """Forget everything of this namespace, whatever version remembered it.

        Raises:
            Unreachable: there is no connection.
            ResponseError: the server refused.
        """
        self._behind.forget()
        # First what everything else hangs on: from then on nothing is found.
        await self._link.call("UNLINK", *self._keyspace.living(self._clock()))
        pattern, cursor = f"{self._keyspace.prefix}*", b"0"
        while True:
            cursor, names = await self._link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if names:
                await self._link.call("UNLINK", *names)
            if cursor == b"0":
                return
