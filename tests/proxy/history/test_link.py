"""Whatever happens to Redis: nothing waits for long, and what was shared comes back by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import redis

from loadtests.harness import free_port
from loadtests.query_attacks.redis_server import RedisServer
from proxy.history.store import Found
from tests.proxy.history.conftest import Opener, Shared, until
from tests.proxy.history.queries import RECORD, numbered, random_keys

EPOCH = "bw:{digits}:????:??"
"""Matches the key of the epoch the tests' clock stands in."""
PROMPT_S = 0.2
"""Time for an answer where a test waits for none."""

Another = Callable[..., RedisServer]
KEYS = random_keys(1, seed=1)
ONES = np.ones(1, np.uint64)


def at_once(shared: Shared) -> Found:
    """What a lookup finds that may not wait for anything."""
    with pytest.raises(StopIteration) as ended:
        shared.store.lookup(KEYS, ONES).send(None)
    found: Found = ended.value.value
    return found


def found_nothing(found: Found) -> bool:
    return (len(found.rows), len(found.records), found.marks.tolist()) == (0, 0, [0.0])


async def asked_in_vain(shared: Shared, reason: str) -> None:
    """Ask until no more is asked; each finds nothing, for that reason."""
    asked = 0
    while shared.store.down is None:
        assert found_nothing(await shared.look(KEYS))
        asked += 1
    assert set(shared.reasons) == {reason}
    assert shared.reasons[reason] == asked <= 3
    assert found_nothing(at_once(shared))
    assert shared.reasons[reason] == asked + 1


async def test_down_at_start(another: Another, opened: Opener) -> None:
    server = another()
    shared = await opened(server.url)
    assert shared.store.down == "unreachable"
    assert found_nothing(at_once(shared))
    assert shared.reasons == {"unreachable": 1}
    shared.store.remember(KEYS, ONES, np.zeros(1, RECORD))
    assert shared.store.queued == 1
    server.start()
    await shared.up()
    await shared.told()
    assert await shared.numbers(KEYS) == [(0, 0)]


async def test_before_it_is_started(server: RedisServer) -> None:
    shared = Shared(server.url)
    assert found_nothing(at_once(shared))
    assert shared.store.down == "unreachable"


async def test_killed_and_restarted_under_traffic(another: Another, opened: Opener) -> None:
    server = another()
    server.start()
    shared = await opened(server.url)
    done, ends = 0, asyncio.Event()

    async def client(seed: int) -> None:
        nonlocal done
        for turn in range(1_000_000):
            keys = random_keys(2, seed=seed * 1_000_000 + turn)
            found = await shared.look(keys)
            assert len(found.marks) == 2
            shared.store.remember(keys, found.marks.astype(np.uint64), np.zeros(2, RECORD))
            done += 1
            await asyncio.sleep(0)
            if ends.is_set():
                return

    async def progress(more: int) -> None:
        wanted = done + more
        await until(lambda: done >= wanted)

    async with asyncio.TaskGroup() as clients:
        for seed in range(1, 5):
            clients.create_task(client(seed))
        for _ in range(2):
            await progress(50)
            server.kill()
            await shared.down("unreachable")
            await progress(50)
            server.start()
            await shared.up()
        await progress(50)
        ends.set()
    await shared.told()
    await shared.remember(KEYS, 3)
    assert await shared.numbers(KEYS) == [(0, 3)]
    assert set(shared.reasons) <= {"unreachable", "full"}


async def test_lost_while_a_lookup_waits(another: Another, opened: Opener) -> None:
    server = another()
    server.start()
    shared = await opened(server.url)
    server.freeze()
    lookup = asyncio.ensure_future(shared.look(KEYS))
    await asyncio.sleep(0)
    server.kill()
    assert found_nothing(await lookup)
    assert shared.reasons["unreachable"] == 1


async def test_frozen(another: Another, opened: Opener) -> None:
    server = another()
    server.start()
    shared = await opened(server.url, timeout_s=PROMPT_S)
    await shared.remember(KEYS, 4)
    server.freeze()
    await asked_in_vain(shared, "timeout")
    await shared.down("unreachable")  # nothing came for so long that the connection is given up
    server.thaw()
    await shared.up()
    assert await shared.numbers(KEYS) == [(0, 4)]


async def test_slow(server: RedisServer, opened: Opener, admin: redis.Redis) -> None:
    shared = await opened(server.url, timeout_s=PROMPT_S)
    await shared.remember(KEYS, 4)
    admin.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # it holds back scripts too
    await asked_in_vain(shared, "timeout")
    admin.execute_command("CLIENT", "UNPAUSE")
    await shared.up()
    assert await shared.numbers(KEYS) == [(0, 4)]


async def test_a_late_answer_is_nobody_elses(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared = await opened(server.url, timeout_s=PROMPT_S)
    keys = random_keys(2, seed=2)
    await shared.remember(keys)
    admin.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    assert found_nothing(await shared.look(keys[:1]))
    admin.execute_command("CLIENT", "UNPAUSE")
    assert await shared.numbers(keys[1:]) == [(0, 1)]


async def test_flushed(server: RedisServer, opened: Opener, admin: redis.Redis) -> None:
    shared = await opened(server.url)
    await shared.remember(KEYS, 1)
    admin.flushall()
    assert await shared.numbers(KEYS) == []
    await shared.remember(KEYS, 2)
    assert await shared.numbers(KEYS) == [(0, 2)]
    assert not shared.reasons


async def test_a_server_that_lost_its_scripts(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared = await opened(server.url)
    handles = await shared.remember(KEYS, 1)
    admin.script_flush()
    assert await shared.numbers(KEYS) == [(0, 1)]
    admin.script_flush()
    shared.store.amend(handles, numbered(2, 1))
    await shared.told()
    admin.script_flush()
    await shared.remember(KEYS, 3)
    assert [number for _, number in await shared.numbers(KEYS)] == [3, 2]
    assert not shared.reasons


async def test_out_of_memory(server: RedisServer, opened: Opener, admin: redis.Redis) -> None:
    shared = await opened(server.url)
    await shared.remember(KEYS, 1)
    admin.config_set("maxmemory", 1)
    try:
        other = random_keys(1, seed=2)
        shared.store.remember(other, ONES, np.zeros(1, RECORD))
        await until(lambda: shared.reasons["out_of_memory"] > 0)
        assert await shared.numbers(KEYS) == [(0, 1)]
        assert shared.store.down is None
    finally:
        admin.config_set("maxmemory", 0)
    await shared.remember(other, 2)
    assert await shared.numbers(other) == [(0, 2)]
    assert set(shared.reasons) == {"out_of_memory"}


async def test_evicted_in_part(server: RedisServer, opened: Opener, admin: redis.Redis) -> None:
    shared = await opened(server.url)
    keys = random_keys(50, seed=2)
    await shared.remember(keys)
    (rows,) = admin.scan_iter("*:row*")
    admin.delete(rows)
    assert await shared.numbers(keys) == []
    await shared.remember(keys, 100)
    assert await shared.numbers(keys) == [(row, 100 + row) for row in range(50)]
    (index,) = admin.scan_iter(EPOCH)  # the epoch itself
    admin.delete(index)
    assert await shared.numbers(keys) == []
    await shared.remember(keys, 200)
    assert await shared.numbers(keys) == [(row, 200 + row) for row in range(50)]
    assert not shared.reasons


async def test_a_password_that_changes(another: Another, opened: Opener, tmp_path: Path) -> None:
    server = another(requirepass="right")
    server.start()
    password = tmp_path / "password"
    password.write_text("wrong\n")
    shared = await opened(server.url, password_file=password)
    assert shared.store.down == "error"
    assert found_nothing(at_once(shared))
    assert shared.reasons == {"error": 1}
    password.write_text("right\n")
    await shared.up()
    await shared.remember(KEYS, 1)
    with redis.Redis(port=server.port, password="right") as admin:
        admin.config_set("requirepass", "other")
        password.write_text("other\n")
        admin.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: shared.store.down is not None)
    await shared.up()
    assert await shared.numbers(KEYS) == [(0, 1)]


async def test_a_password_file_that_is_missing(another: Another, opened: Opener) -> None:
    server = another(requirepass="right")
    server.start()
    shared = await opened(server.url, password_file=Path("/nowhere"))
    assert shared.store.down == "error"


async def test_the_rights_it_needs(
    server: RedisServer, opened: Opener, admin: redis.Redis, tmp_path: Path
) -> None:
    rights = (
        "~bw:* resetchannels -@all +evalsha +eval +hget +hmget +mget "
        "+hset +hincrby +hdel +set +expire +exists +unlink +scan"
    )
    admin.execute_command("ACL", "SETUSER", "breakwater", "reset", "on", ">word", *rights.split())
    password = tmp_path / "password"
    password.write_text("word")
    shared = await opened(server.url, username="breakwater", password_file=password)
    assert shared.store.down is None
    keys = random_keys(200, seed=2)
    handles = await shared.remember(keys)
    shared.store.amend(handles, np.zeros(200, RECORD))
    shared.store.mark(1, 2.0, ttl_s=60)
    await shared.told()
    found = await shared.look(keys)
    assert (len(found.rows), set(found.marks)) == (200, {2.0})
    await shared.store.clear()
    assert await shared.numbers(keys) == []
    assert not shared.reasons


@pytest.mark.parametrize("right", ["evalsha", "hmget", "mget"])
async def test_a_right_that_is_missing(
    server: RedisServer, opened: Opener, admin: redis.Redis, right: str
) -> None:
    grant = ("ACL", "SETUSER", "limited")
    admin.execute_command(*grant, "reset", "on", ">word", "~*", "+@all", f"-{right}")
    shared = await opened(f"redis://limited:word@127.0.0.1:{server.port}")
    assert shared.store.down == "error"
    assert found_nothing(at_once(shared))
    admin.execute_command(*grant, f"+{right}")
    await shared.up()
    await shared.remember(KEYS, 1)
    assert await shared.numbers(KEYS) == [(0, 1)]


async def test_a_right_that_is_withdrawn(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    grant = ("ACL", "SETUSER", "limited")
    admin.execute_command(*grant, "reset", "on", ">word", "~*", "+@all")
    shared = await opened(f"redis://limited:word@127.0.0.1:{server.port}")
    await shared.remember(KEYS, 1)
    admin.execute_command(*grant, "-evalsha")
    await asked_in_vain(shared, "error")
    shared.reasons.clear()
    admin.execute_command(*grant, "+evalsha", "-hincrby")
    await shared.up()
    shared.store.remember(random_keys(1, seed=2), ONES, np.zeros(1, RECORD))
    await until(lambda: shared.reasons["error"] == 1)
    assert await shared.numbers(KEYS) == [(0, 1)]


async def test_another_type_at_our_key(
    server: RedisServer, opened: Opener, admin: redis.Redis
) -> None:
    shared = await opened(server.url)
    await shared.remember(KEYS, 1)
    (epoch,) = admin.scan_iter(EPOCH)
    admin.rename(epoch, b"bw:{digits}:aside")
    admin.set(epoch, "a string", ex=60)
    await asked_in_vain(shared, "error")
    admin.rename(b"bw:{digits}:aside", epoch)
    await shared.up()
    assert await shared.numbers(KEYS) == [(0, 1)]


async def test_rubbish_at_our_key(server: RedisServer, opened: Opener, admin: redis.Redis) -> None:
    shared = await opened(server.url)
    await shared.remember(KEYS, 1)
    (epoch,) = admin.scan_iter(EPOCH)
    for name in list(admin.scan_iter(f"{EPOCH}:*")):
        for field in admin.hkeys(name):
            admin.hset(name, field, os.urandom(40))
    assert await shared.numbers(KEYS) == []
    await shared.remember(random_keys(200, seed=2), 2)  # which splits buckets full of rubbish
    await shared.remember(KEYS, 1)
    assert await shared.numbers(KEYS) == [(0, 1)]
    admin.hset(epoch, "b", "many")
    await asked_in_vain(shared, "error")
    admin.delete(epoch)
    await shared.up()


async def test_the_newest_wait_when_too_much_does(another: Another, opened: Opener) -> None:
    server = another()
    shared = await opened(server.url, most_queued=10)
    keys = random_keys(25, seed=2)
    for row in range(25):
        shared.store.remember(keys[row : row + 1], ONES, numbered(row, 1))
    assert (shared.store.queued, shared.reasons["full"]) == (10, 15)
    server.start()
    await shared.up()
    await shared.told()
    assert await shared.numbers(keys) == [(row, row) for row in range(15, 25)]


async def test_more_at_once_than_may_wait(server: RedisServer, opened: Opener) -> None:
    shared = await opened(server.url, most_queued=10)
    keys = random_keys(25, seed=2)
    await shared.remember(keys)
    assert shared.reasons == {"full": 1}
    assert await shared.numbers(keys) == [(row, row) for row in range(15, 25)]


@pytest.mark.parametrize("state", ["up", "down", "frozen", "with much to tell"])
async def test_close_never_hangs(another: Another, state: str) -> None:
    server = another()
    if state != "down":
        server.start()
    shared = Shared(server.url)
    await shared.store.start()
    lookups = []
    if state == "frozen":
        server.freeze()
        lookups = [asyncio.ensure_future(shared.look(KEYS)) for _ in range(3)]
        await asyncio.sleep(0)
    many = random_keys(3_000 if state == "with much to tell" else 3, seed=2)
    shared.store.remember(many, np.ones(len(many), np.uint64), np.zeros(len(many), RECORD))
    async with asyncio.timeout(3):
        await shared.store.close()
    for lookup in lookups:
        assert found_nothing(await lookup)
    assert found_nothing(at_once(shared))


async def test_what_waits_is_told_before_the_end(server: RedisServer, opened: Opener) -> None:
    shared = Shared(server.url)
    await shared.store.start()
    shared.store.remember(KEYS, ONES, np.zeros(1, RECORD))
    await shared.store.close()
    assert len(await (await opened(server.url)).numbers(KEYS)) == 1


async def test_something_that_is_not_redis(opened: Opener) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        shared = await opened(f"redis://127.0.0.1:{port}")
        assert shared.store.down == "unreachable"
        assert found_nothing(at_once(shared))


async def test_a_primary_that_is_demoted(
    another: Another, server: RedisServer, opened: Opener
) -> None:
    demoted = another()
    demoted.start()
    shared = await opened(demoted.url)
    await shared.remember(KEYS, 1)
    with redis.Redis(port=demoted.port) as admin:
        admin.replicaof("127.0.0.1", server.port)
        shared.store.remember(KEYS, ONES, np.zeros(1, RECORD))
        await until(lambda: shared.reasons["error"] > 0)  # and it asks the name anew who it is
        admin.replicaof("NO", "ONE")
    await shared.up()
    await shared.remember(KEYS, 2)
    assert (0, 2) in await shared.numbers(KEYS)


async def test_a_cluster(another: Another, opened: Opener) -> None:
    nodes = [
        another(cluster_enabled="yes", cluster_config_file=f"{n}.conf", cluster_port=free_port())
        for n in (1, 2)
    ]
    for node in nodes:
        node.start()
    first, second = (redis.Redis(port=node.port) for node in nodes)
    with first, second:
        bus = nodes[1].settings["cluster_port"]
        first.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, bus)
        slot = first.execute_command("CLUSTER", "KEYSLOT", "bw:{digits}:")
        second.execute_command("CLUSTER", "ADDSLOTSRANGE", slot, slot)
        parts = [0, slot - 1, slot + 1, 16383]
        first.execute_command("CLUSTER", "ADDSLOTSRANGE", *parts)

        def agreed() -> bool:
            states = [node.execute_command("CLUSTER", "INFO") for node in (first, second)]
            return all(b"cluster_state:ok" in state for state in states)

        await until(agreed)
    shared = await opened(nodes[0].url)  # which sends it to the other one
    await shared.up()
    keys = random_keys(100, seed=2)
    await shared.remember(keys)
    assert len(await shared.numbers(keys)) == 100


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """ca.crt, other.crt (another authority), server.crt/.key and client.crt/.key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    def run(*told: str) -> None:
        subprocess.run([openssl, *told], cwd=tmp_path, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other"):
        run(*new, "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        run(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        run("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt")
    return tmp_path


async def test_tls(another: Another, opened: Opener, certificates: Path) -> None:
    server = another(
        tls_port=0,
        tls_cert_file=str(certificates / "server.crt"),
        tls_key_file=str(certificates / "server.key"),
        tls_ca_cert_file=str(certificates / "ca.crt"),
    )
    server.start()
    url = f"rediss://127.0.0.1:{server.tls_port}"
    mine = {
        "cert_file": certificates / "client.crt",
        "key_file": certificates / "client.key",
    }
    shared = await opened(url, ca_file=certificates / "ca.crt", **mine)
    assert shared.store.down is None
    await shared.remember(KEYS, 1)
    assert await shared.numbers(KEYS) == [(0, 1)]
    distrustful = await opened(url, ca_file=certificates / "other.crt", **mine)
    assert distrustful.store.down == "unreachable"
    nameless = await opened(url, ca_file=certificates / "ca.crt")
    assert nameless.store.down == "unreachable"
    server.kill()
    await shared.down("unreachable")
    server.start()
    await shared.up()
    assert await shared.numbers(KEYS) == []
