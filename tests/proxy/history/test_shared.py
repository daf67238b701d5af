"""Remembered queries in a real Redis: what is found, by whom, for how long, and at what size."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import redis

from loadtests.query_attacks.redis_server import RedisServer
from proxy.errors import ConfigError
from proxy.history.access import Access
from proxy.history.shared import SharedStore
from proxy.history.store import MOST
from tests.proxy.history.conftest import Opener
from tests.proxy.history.queries import RECORD, Clock, numbered, random_keys, with_in_common


def bits(*places: int) -> int:
    return sum(1 << place for place in places)


async def test_a_query_is_found_by_what_it_shares(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(3, seed=1)
    await shared.remember(keys, number=7)
    similar = with_in_common(keys[1:], [0, 5, 23], seed=2)
    found = await shared.look(np.concatenate([random_keys(1, seed=3), similar]))
    assert found.rows.tolist() == [1, 2]
    assert found.shared.tolist() == [bits(0, 5, 23)] * 2
    assert found.records["number"].tolist() == [8, 9]
    assert found.records.dtype == RECORD
    assert found.marks.tolist() == [0, 0, 0]
    assert not shared.reasons


async def test_sixty_four_keys(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(40, seed=1, width=64)
    await shared.remember(keys)
    found = await shared.look(keys)
    assert found.rows.tolist() == list(range(40))
    assert found.shared.tolist() == [2**64 - 1] * 40
    found = await shared.look(with_in_common(keys[:1], [0, 31, 32, 63], seed=2))
    assert found.shared.tolist() == [bits(0, 31, 32, 63)]


async def test_keys_that_differ_in_any_bit_are_different(
    server: RedisServer, opened: Opener
) -> None:
    shared = await opened(server.url)
    keys = random_keys(1, seed=1, width=1)
    await shared.remember(keys)
    others = keys ^ (np.uint64(1) << np.arange(64, dtype=np.uint64)[:, None])
    assert await shared.numbers(others) == []


async def test_zero_is_no_key(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(2, seed=1)
    keys[:, 3:] = 0
    await shared.remember(keys)
    found = await shared.look(keys)
    assert found.rows.tolist() == [0, 1]
    assert found.shared.tolist() == [0b111, 0b111]


async def test_most_shared_first_then_the_newest(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(1, seed=1)
    for number, places in enumerate(([0], [1, 2, 3], [4, 5], [6, 7], [8])):
        await shared.remember(with_in_common(keys, places, seed=10 + number), number)
    assert [number for _, number in await shared.numbers(keys)] == [1, 3, 2, 4, 0]


async def test_at_most_eight_are_found(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(1, seed=1)
    await shared.remember(np.repeat(keys, 20, axis=0))
    found = await shared.numbers(np.repeat(keys, 2, axis=0))
    newest = list(range(19, 19 - MOST, -1))
    assert found == [(row, number) for row in (0, 1) for number in newest]


async def test_a_key_twice_in_a_row(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(1, seed=1, width=4)
    keys[0, 3] = keys[0, 0]
    await shared.remember(keys)
    found = await shared.look(keys)
    assert (found.rows.tolist(), found.shared.tolist()) == ([0], [0b1111])


async def test_nothing_in_nothing_out(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    none = random_keys(0, seed=1)
    assert len(await shared.remember(none)) == 0
    shared.store.amend(np.zeros(0, np.uint64), np.zeros(0, RECORD))
    found = await shared.look(none)
    assert (len(found.rows), len(found.marks), shared.store.queued) == (0, 0, 0)


async def test_replicas_share_what_they_remember(server: RedisServer, opened: Opener) -> None:
    one, two = await opened(server.url), await opened(server.url)
    keys = random_keys(100, seed=1)
    await one.remember(keys[:60])
    await two.remember(keys[60:], 60)
    for replica in (one, two):
        assert await replica.numbers(keys) == [(row, row) for row in range(100)]


async def test_other_namespaces_and_other_records_share_nothing(
    server: RedisServer, opened: Opener
) -> None:
    keys = random_keys(1, seed=1)
    mine = await opened(server.url)
    await mine.remember(keys, 1)
    other_model = await opened(server.url, namespace="cats*{a} b")
    renamed = np.dtype([("count", "<u4"), ("rest", "V60")])
    longer = np.dtype([("number", "<u4"), ("rest", "V61")])
    others = [other_model, *[await opened(server.url, record=dtype) for dtype in (renamed, longer)]]
    for other in others:
        assert len((await other.look(keys)).rows) == 0
        other.store.remember(keys, np.ones(1, np.uint64), np.zeros(1, other.record))
        await other.told()
        assert len((await other.look(keys)).rows) == 1
    assert await mine.numbers(keys) == [(0, 1)]


async def test_amended_records_are_found_as_amended(server: RedisServer, opened: Opener) -> None:
    shared, reader = await opened(server.url), await opened(server.url)
    keys = random_keys(20, seed=1)
    handles = await shared.remember(keys)
    shared.store.amend(handles[[4, 17]], numbered(104, 14)[[0, 13]])
    await shared.told()
    expected = {4: 104, 17: 117}
    for store in (shared, reader):
        found = await store.numbers(keys)
        assert found == [(row, expected.get(row, row)) for row in range(20)]


async def test_amended_before_it_was_told(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(1, seed=1)
    handles = shared.store.remember(keys, np.ones(1, np.uint64), numbered(4, 1))
    shared.store.amend(handles, numbered(5, 1))
    await shared.told()
    assert await shared.numbers(keys) == [(0, 5)]


async def test_what_was_forgotten_is_not_amended_back(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared = await opened(server.url)
    keys = random_keys(1, seed=1)
    handles = await shared.remember(keys)
    admin.flushall()
    other = random_keys(1, seed=2)
    await shared.remember(other, 50)  # in the place where the forgotten one was
    shared.store.amend(handles, np.zeros(1, RECORD))
    await shared.told()
    assert await shared.numbers(keys) == []
    assert await shared.numbers(other) == [(0, 50)]


async def test_marks_travel_and_end(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    one, two = await opened(server.url), await opened(server.url)
    owners = np.array([3, 2**64 - 1, 4], np.uint64)
    one.store.mark(3, 2.5, ttl_s=60)
    one.store.mark(2**64 - 1, -1.0, ttl_s=3600)
    await one.told()
    assert (await two.look(random_keys(3, seed=1), owners)).marks.tolist() == [2.5, -1.0, 0.0]
    assert 59_000 < admin.pttl(b"bw:{digits}:m:" + (3).to_bytes(8, "little")) <= 60_000
    two.store.mark(3, 0, ttl_s=60)
    await two.told()
    assert (await one.look(random_keys(3, seed=1), owners)).marks.tolist() == [0.0, -1.0, 0.0]


async def test_queries_are_forgotten_by_age(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url, ttl_s=100, clock=Clock(4_000_000.0))
    first, second = random_keys(1, seed=1), random_keys(1, seed=2)
    await shared.remember(first, 1)
    shared.clock.now += 60
    await shared.remember(second, 2)
    both = np.concatenate([first, second])
    assert await shared.numbers(both) == [(0, 1), (1, 2)]
    shared.clock.now += 41
    assert await shared.numbers(both) == [(1, 2)]
    shared.clock.now += 60
    assert await shared.numbers(both) == []


async def test_an_epoch_ends_without_forgetting(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url, ttl_s=100, clock=Clock(4_000_399.0))
    keys = random_keys(2, seed=1)
    handles = await shared.remember(keys[:1], 1)
    shared.clock.now += 2  # epochs last 400 s
    await shared.remember(keys[1:], 2)
    assert await shared.numbers(keys) == [(0, 1), (1, 2)]
    shared.store.amend(handles, numbered(9, 1))
    await shared.told()
    assert await shared.numbers(keys) == [(0, 9), (1, 2)]


async def test_every_key_expires_and_has_the_namespace(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared = await opened(server.url, ttl_s=100)
    shared.store.mark(3, 1.0, ttl_s=60)
    await shared.remember(random_keys(100, seed=1))
    names = list(admin.scan_iter(count=1000))
    assert len(names) > 20
    assert all(name.startswith(b"bw:{digits}:") for name in names)
    assert all(0 < admin.ttl(name) <= 6 * 100 for name in names)  # an epoch is four ages long
    assert all(admin.ttl(name) <= 100 for name in names if b":row" in name)


async def test_an_epoch_that_is_over_is_freed(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared = await opened(server.url, ttl_s=100, clock=Clock(4_000_000.0))
    await shared.remember(random_keys(50, seed=1))
    first = set(admin.scan_iter("bw:{digits}:????:10000*"))
    assert len(first) > 20
    shared.clock.now += 450
    await shared.remember(random_keys(50, seed=2))
    assert set(admin.scan_iter("bw:{digits}:????:10000*")) == first  # it may still be asked for
    shared.clock.now += 100
    await shared.remember(random_keys(50, seed=3))
    rows = {name for name in first if b":row" in name}  # which expire by themselves
    assert set(admin.scan_iter("bw:{digits}:????:10000*")) == rows


async def test_the_oldest_make_room(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url, capacity=1_000)
    keys = random_keys(3_000, seed=1)
    for start in range(0, 3_000, 100):
        await shared.remember(keys[start : start + 100], start)
    rows = [row for row, _ in await shared.numbers(keys)]
    assert rows == list(range(rows[0], 3_000))
    assert 1_000 <= len(rows) < 3_000


async def test_an_owner_is_thinned_out(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url, per_owner_minute=20)
    keys, owners = random_keys(84, seed=1), np.full(84, 5, np.uint64)
    handles = await shared.remember(keys, owners=owners)
    assert [row for row, _ in await shared.numbers(keys)] == [*range(20), 31, 47, 63, 79]
    shared.store.amend(handles, np.zeros(84, RECORD))  # those that were not remembered stay so
    await shared.told()
    assert len(await shared.numbers(keys)) == 24
    other = random_keys(1, seed=2)
    await shared.remember(other, owners=np.array([6], np.uint64))
    assert len(await shared.numbers(other)) == 1
    shared.clock.now += 60
    await shared.remember(keys[20:31], owners=owners[:11])
    assert len(await shared.numbers(keys)) == 35


async def test_clear_forgets_this_namespace_only(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared, other = await opened(server.url), await opened(server.url, namespace="other")
    keys = random_keys(300, seed=1)
    await shared.remember(keys)
    shared.store.mark(1, 1.0, ttl_s=60)
    await shared.told()
    await other.remember(keys)
    shared.store.remember(keys, np.ones(300, np.uint64), np.zeros(300, RECORD))
    await shared.store.clear()
    await shared.told()
    found = await shared.look(keys)
    assert (len(found.rows), found.marks.any()) == (0, False)
    assert len(list(admin.scan_iter("bw:{digits}:*"))) == 0
    assert len(await other.numbers(keys)) == 300
    await shared.remember(keys)
    assert len(await shared.numbers(keys)) == 300


async def test_lookups_of_one_turn_travel_together(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared = await opened(server.url)
    keys = random_keys(70, seed=1)
    await shared.remember(keys)
    wide = random_keys(1, seed=2, width=30)
    admin.config_resetstat()
    parts = [keys[0:1], keys[1:4], keys[4:14], keys[14:17], wide, keys[17:54]]
    found = await asyncio.gather(*(shared.look(part) for part in parts))
    starts = [0, 1, 4, 14, 0, 17]
    for part, one, start in zip(parts, found, starts, strict=True):
        expected = [] if part is wide else list(range(len(part)))
        assert one.rows.tolist() == expected
        assert one.records["number"].tolist() == [start + row for row in expected]
        assert len(one.marks) == len(part)
    # 14 queries; 3; 1 of another width; and 37, which take three calls
    assert admin.info("commandstats")["cmdstat_evalsha"]["calls"] == 6


async def test_a_lookup_nobody_waits_for_any_more(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(2, seed=1)
    await shared.remember(keys)
    gone = asyncio.ensure_future(shared.look(keys[:1]))
    stays = asyncio.ensure_future(shared.look(keys[1:]))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).records["number"].tolist() == [1]


async def test_the_index_grows_with_what_it_holds(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url)
    keys = random_keys(4_000, seed=1)
    for start in range(0, 4_000, 500):
        await shared.remember(keys[start : start + 500], start)
    assert await shared.numbers(keys) == [(row, row) for row in range(4_000)]


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match="address"):
        SharedStore(Access("http://redis"), "digits", RECORD, ttl_s=60)
