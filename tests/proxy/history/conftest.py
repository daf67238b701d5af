"""Real Redis servers, and stores in them with what they report."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from loadtests.query_attacks.redis_server import RedisServer, RedisUnavailable, binary
from proxy.history.access import Access
from proxy.history.shared import SharedStore
from proxy.history.store import Found
from tests.proxy.history.queries import PATIENT_S, RECORD, Clock, Keys, Owners, numbered


@pytest.fixture(scope="session")
def _redis_is_there() -> None:
    try:
        binary()
    except RedisUnavailable as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))


class Shared:
    """A store with a clock that stands, what it reported, and waits with a limit."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.clock = settings.pop("clock", Clock())
        self.reasons: Counter[str] = Counter()
        access = {name: settings.pop(name) for name in list(settings) if name in Access.__slots__}
        fields = {"namespace": "digits", "record": RECORD, "ttl_s": 3600, "timeout_s": PATIENT_S}
        self.record = {**fields, **settings}["record"]
        self.store = SharedStore(
            Access(url, **access),
            **{**fields, **settings},
            on_degraded=lambda reason: self.reasons.update([reason]),
            clock=self.clock,
        )

    async def told(self) -> None:
        """Return when nothing waits to be told."""
        await until(lambda: self.store.queued == 0)

    async def up(self) -> None:
        await until(lambda: self.store.down is None)

    async def down(self, reason: str) -> None:
        await until(lambda: self.store.down == reason)

    async def remember(
        self, keys: Keys, number: int = 0, owners: Owners | None = None
    ) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Remember rows of keys with records `number`, `number` + 1, ...; wait until they are."""
        records = numbered(number, len(keys))
        handles = self.store.remember(keys, _owners(keys, owners), records)
        await self.told()
        return handles

    async def look(self, keys: Keys, owners: Owners | None = None) -> Found:
        return await self.store.lookup(keys, _owners(keys, owners))

    async def numbers(self, keys: Keys) -> list[tuple[int, int]]:
        """What is found: row and number of each."""
        found = await self.look(keys)
        return list(zip(found.rows.tolist(), found.records["number"].tolist(), strict=True))


def _owners(keys: Keys, owners: Owners | None) -> Owners:
    return np.ones(len(keys), np.uint64) if owners is None else owners


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 (what others do cannot set an event here)
            await asyncio.sleep(0.002)


Opener = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    """Starts stores and closes them at the end."""
    stores: list[Shared] = []

    async def opener(url: str, **settings: Any) -> Shared:
        shared = Shared(url, **settings)
        stores.append(shared)
        await shared.store.start()
        return shared

    yield opener
    for shared in stores:
        async with asyncio.timeout(5):
            await shared.store.close()


@pytest.fixture(scope="session")
def _server(
    _redis_is_there: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(_server: RedisServer, admin: redis.Redis) -> RedisServer:
    """A server that is empty; to kill or change one, start another."""
    admin.flushall()
    return _server


@pytest.fixture
def admin(_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of our own on that server."""
    with redis.Redis(port=_server.port) as client:
        yield client


@pytest.fixture
def another(_redis_is_there: None, tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes servers that a test may treat as it likes; they are ended with it."""
    servers: list[RedisServer] = []

    def make(**settings: str | int) -> RedisServer:
        servers.append(RedisServer(tmp_path, **settings))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()
