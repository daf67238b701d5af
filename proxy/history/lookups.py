"""Lookups on the server: joined while they wait for the same turn, and never waited for long."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from redis.exceptions import ResponseError

from proxy.history.keyspace import Keyspace, script
from proxy.history.link import Link, Unreachable
from proxy.history.store import Found, Keys, Owners
from proxy.tasks import Tasks

_AT_ONCE = 16  # queries in one call: the server serves nobody else meanwhile
_GRACE_TURNS = 3  # of the event loop: an answer that lies ready is read before time is up


class _Asked(NamedTuple):
    keys: Keys
    owners: Owners
    found: asyncio.Future[Found]


class Lookups:
    """What asks the server.

    Args:
        link: the server.
        keyspace: where it keeps things.
        timeout_s: seconds a lookup waits at most.
        on_degraded: told why a lookup found nothing.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        link: Link,
        keyspace: Keyspace,
        *,
        timeout_s: float,
        on_degraded: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._link = link
        self._keyspace = keyspace
        self._timeout_s = timeout_s
        self._on_degraded = on_degraded
        self._clock = clock
        self._script = script("lookup")
        self._asked: list[_Asked] = []
        self._tasks = Tasks()

    async def find(self, keys: Keys, owners: Owners) -> Found:
        """What the server knows; nothing if that is not known in time."""
        if len(keys) == 0:
            return self._nothing(0)
        if not self._link.up.is_set():
            self._on_degraded(self._link.reason)
            return self._nothing(len(keys))
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._flush)
        asked = _Asked(keys, owners, loop.create_future())
        self._asked.append(asked)
        return await asked.found

    async def look(self, keys: Keys, owners: Owners) -> Found:
        """What the server knows, however long it takes.

        Raises:
            Unreachable: there is no connection, or it was lost.
            ResponseError: the server refused.
            ValueError: its answer is none.
        """
        now, space = self._clock(), self._keyspace
        living, oldest = space.living(now), int(now) - space.ttl_s
        tags, names = space.tags(keys), np.ascontiguousarray(owners, dtype="<u8")
        starts = range(0, len(keys), _AT_ONCE)
        answers = await asyncio.gather(
            *(
                self._link.run(
                    self._script,
                    living,
                    *space.sharded(tags[start : start + _AT_ONCE]),
                    keys.shape[1],
                    names[start : start + _AT_ONCE].tobytes(),
                    space.marks,
                    space.slot,
                    oldest,
                )
                for start in starts
            )
        )
        matches = [space.matches(answer[0]) for answer in answers]
        rows = [
            found["row"].astype(np.intp) + at for found, at in zip(matches, starts, strict=True)
        ]
        every = matches[0] if len(matches) == 1 else np.concatenate(matches)
        marks = np.frombuffer(b"".join(answer[1] for answer in answers), "<f8")
        return Found(np.concatenate(rows), every["shared"], every["record"], marks)

    async def close(self) -> None:
        """Answer with nothing what still waits."""
        await self._tasks.stop()

    def _flush(self) -> None:
        """Send what was asked in this turn, in calls of bounded size."""
        asked, self._asked = self._asked, []
        groups, size = [[asked[0]]], len(asked[0].keys)
        for before, one in itertools.pairwise(asked):
            size += len(one.keys)
            if size <= _AT_ONCE and one.keys.shape[1] == before.keys.shape[1]:
                groups[-1].append(one)
            else:
                groups.append([one])
                size = len(one.keys)
        for group in groups:
            self._tasks.start(self._ask(group))
        asyncio.get_running_loop().call_later(self._timeout_s, self._expire, groups, _GRACE_TURNS)

    async def _ask(self, group: Sequence[_Asked]) -> None:
        try:
            found = await self.look(
                np.concatenate([one.keys for one in group]),
                np.concatenate([one.owners for one in group]),
            )
        except Unreachable:
            self._give_up(group, "unreachable")
        except (ResponseError, ValueError):
            self._link.failed("error")
            self._give_up(group, "error")
        else:
            self._answer(group, found)
        finally:  # cancelled
            self._give_up(group, "unreachable")

    def _answer(self, group: Sequence[_Asked], found: Found) -> None:
        first = 0
        for one in group:
            past = first + len(one.keys)
            if not one.found.done():
                self._link.worked()
                part = slice(*np.searchsorted(found.rows, (first, past)))
                one.found.set_result(
                    Found(
                        found.rows[part] - first,
                        found.shared[part],
                        found.records[part],
                        found.marks[first:past],
                    )
                )
            first = past

    def _expire(self, groups: Sequence[Sequence[_Asked]], turns: int) -> None:
        """Time is up; what was answered in part only shows that much was asked at once."""
        late = [group for group in groups if not all(one.found.done() for one in group)]
        if late and turns:
            asyncio.get_running_loop().call_soon(self._expire, groups, turns - 1)
        elif late:
            if len(late) == len(groups):
                self._link.failed("timeout")
            for group in late:
                self._give_up(group, "timeout")

    def _give_up(self, group: Sequence[_Asked], reason: str) -> None:
        for one in group:
            if not one.found.done():
                self._on_degraded(reason)
                one.found.set_result(self._nothing(len(one.keys)))

    def _nothing(self, queries: int) -> Found:
        return Found(
            np.zeros(0, np.intp),
            np.zeros(0, np.uint64),
            np.zeros(0, self._keyspace.record),
            np.zeros(queries, np.float64),
        )
