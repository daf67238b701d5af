"""The facade: local first, shared second, two replicas, a shared store that comes and goes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from detectors.chains import FEATURES
from loadtests.query_attacks.redis_server import RedisServer
from proxy import config
from proxy.history import memory_file
from proxy.history.fingerprints import Fingerprinter, Prints
from proxy.history.history import History
from proxy.history.memory import WorkerMemory
from proxy.metrics import Metrics
from tests.images import benign
from tests.proxy.history.conftest import until

MODEL = "cnn"
LENGTH = FEATURES.index("length")
HALVING = FEATURES.index("halving")
POLICY = config.QueryAttacks(quarantine_minutes=10)
IMAGES = torch.from_numpy(benign(4, seed=9))


class Replica:
    """A history, what makes its fingerprints, and its metrics."""

    def __init__(self, *, file: int | None = None, **settings: Any) -> None:
        self.now = 1_000_000.0
        self.set_by_s = 0.0
        """By how much somebody set the wall clock."""
        self.registry = CollectorRegistry()
        cfg = config.History.model_validate(settings)
        metrics = Metrics(self.registry)
        self.history = History(
            *(cfg, metrics),
            file=file,
            now=lambda: self.now + self.set_by_s,
            clock=lambda: self.now,
        )
        salts = self.history.salts
        self._fingerprint = Fingerprinter(salts.steady(MODEL), lambda: salts.of(MODEL))

    def prints(self, x: Tensor) -> Prints:
        return self._fingerprint(x, torch.zeros(len(x)))

    async def ask(self, x: Tensor, principal: str = "p") -> np.ndarray:
        """The features of one image."""
        self.now += 0.01
        trace = await self.history.observe(MODEL, principal, self.prints(x[None]), POLICY)
        return trace.features[0]

    def state(self) -> str:
        """How the shared store is."""
        return str(self.history.standings()["shared"]["state"])

    async def told(self) -> None:
        """Return when the shared store has been told everything."""
        await until(lambda: not self.history.standings()["shared"]["queued"])

    def degraded(self) -> float:
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "breakwater_history_degraded_total"
        )


def near_copies(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(count, *IMAGES.shape[1:], generator=generator) / 255
    return list((IMAGES[0] + noise).clamp(0, 1))


def binary_search(steps: int) -> list[Tensor]:
    low, high = IMAGES[1], IMAGES[2]
    queries = [low, high]
    for _ in range(steps):
        high = (low + high) / 2
        queries.append(high)
    return queries


async def test_a_chain_grows_with_each_query_that_follows() -> None:
    replica = Replica()
    lengths = [(await replica.ask(x))[LENGTH] for x in near_copies(6)]
    assert lengths == [0, 2, 3, 4, 5, 6]
    assert (await replica.ask(IMAGES[3]))[LENGTH] == 0


async def test_it_grows_over_all_principals() -> None:
    replica = Replica()
    lengths = [(await replica.ask(x, f"p{i}"))[LENGTH] for i, x in enumerate(near_copies(6))]
    assert lengths == [0, 2, 3, 4, 5, 6]


async def test_an_exact_repeat_is_no_query_of_a_chain() -> None:
    replica = Replica()
    copies = near_copies(3)
    for x in copies:
        await replica.ask(x)
    for _ in range(5):
        assert (await replica.ask(copies[-1]))[LENGTH] == 3
    assert len(replica.history._local) == 3


async def test_the_first_steps_of_a_binary_search_are_followed_for_their_principal_only() -> None:
    replica = Replica()
    features = [await replica.ask(x) for x in binary_search(4)]
    assert [f[HALVING] for f in features] == [0, 0, 0, 1, 2, 3]
    sybils = Replica()
    features = [await sybils.ask(x, f"p{i}") for i, x in enumerate(binary_search(3))]
    assert features[3][HALVING] == 0


async def test_what_is_too_old_is_forgotten() -> None:
    replica = Replica(ttl_minutes=60)
    first, second, third = near_copies(3)
    await replica.ask(first)
    replica.now += 3599
    assert (await replica.ask(second))[LENGTH] == 2
    replica.now += 3601
    assert (await replica.ask(third))[LENGTH] == 0


async def test_a_chain_outlives_its_salt(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123")
    replica = Replica(key_file=key, rotate_hours=1, ttl_minutes=60)
    replica.now = 3600 * 500 - 1.0
    copies = near_copies(8)
    for x in copies[:4]:
        await replica.ask(x)
    replica.now = 3600 * 500 + 1.0
    assert [(await replica.ask(x))[LENGTH] for x in copies[4:]] == [5, 6, 7, 8]


@asynccontextmanager
async def replicas(count: int, server: RedisServer, tmp_path: Path) -> AsyncIterator[list[Replica]]:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123")
    shared = {"url": server.url, "timeout_ms": 5_000}
    made = [Replica(key_file=key, shared=shared) for _ in range(count)]
    for each in made:
        await each.history.start()
        await until(lambda each=each: each.state() == "up")
    try:
        yield made
    finally:
        for each in made:
            await each.history.close()


async def test_a_chain_grows_over_replicas(server: RedisServer, tmp_path: Path) -> None:
    async with replicas(3, server, tmp_path) as made:
        lengths = []
        for i, x in enumerate(near_copies(9)):
            lengths.append((await made[i % 3].ask(x))[LENGTH])
            await made[i % 3].told()
        assert lengths == [0, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_a_retry_on_another_replica_is_a_retry(server: RedisServer, tmp_path: Path) -> None:
    async with replicas(2, server, tmp_path) as (first, second):
        x = near_copies(1)[0]
        for replica in (first, second, first, second):
            assert (await replica.ask(x))[LENGTH] == 0
            await replica.told()


async def test_quarantine_reaches_other_replicas_with_the_next_query(
    server: RedisServer, tmp_path: Path
) -> None:
    async with replicas(2, server, tmp_path) as (first, second):
        trace = await first.history.observe(MODEL, "eve", first.prints(IMAGES[:1]), POLICY)
        first.history.alarm(MODEL, "eve", POLICY, trace)
        await first.told()
        assert not second.history.is_quarantined(MODEL, "eve")
        await second.ask(IMAGES[1], "eve")
        assert second.history.is_quarantined(MODEL, "eve")
        await second.ask(IMAGES[1], "alice")
        assert not second.history.is_quarantined(MODEL, "alice")
        second.now += 601
        assert not second.history.is_quarantined(MODEL, "eve")


async def test_what_one_replica_forgives_is_not_imposed_anew(
    server: RedisServer, tmp_path: Path
) -> None:
    async with replicas(2, server, tmp_path) as (first, second):
        trace = await first.history.observe(MODEL, "eve", first.prints(IMAGES[:1]), POLICY)
        first.history.alarm(MODEL, "eve", POLICY, trace)
        await first.told()
        await second.ask(IMAGES[1], "eve")
        assert await first.history.forget("eve", None) == 1
        assert await second.history.forget("eve", None) == 1
        await first.told()
        await second.told()
        for replica in (first, second):
            await replica.ask(IMAGES[2], "eve")
            assert not replica.history.is_quarantined(MODEL, "eve")


async def test_a_shared_store_that_dies_leaves_the_local_chain_and_is_found_again(
    another: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = another()
    server.start()
    copies = near_copies(9)
    async with replicas(1, server, tmp_path) as (replica,):
        lengths = [(await replica.ask(x))[LENGTH] for x in copies[:3]]
        server.kill()
        await until(lambda: replica.state() != "up")
        lengths += [(await replica.ask(x))[LENGTH] for x in copies[3:6]]
        assert replica.degraded() > 0
        server.start()
        await until(lambda: replica.state() == "up")
        lengths += [(await replica.ask(x))[LENGTH] for x in copies[6:]]
        assert lengths == [0, 2, 3, 4, 5, 6, 7, 8, 9]
        await replica.told()


async def test_who_was_pardoned_begins_anew() -> None:
    replica = Replica()
    copies = near_copies(6)
    for x in copies[:4]:
        await replica.ask(x)
    await replica.history.forget("p", MODEL)
    assert (await replica.ask(copies[4]))[LENGTH] == 0
    assert (await replica.ask(copies[5]))[LENGTH] == 2


async def test_nobody_is_suspected_for_what_others_asked_about_the_same_image() -> None:
    replica = Replica()
    copies = near_copies(9)
    odd = torch.full((1,), 12.0)
    for x in copies[:8]:
        await replica.history.observe(MODEL, "eve", replica._fingerprint(x[None], odd), POLICY)
    await replica.ask(IMAGES[2], "alice")
    features = await replica.ask(copies[8], "alice")
    assert features[LENGTH] == 9
    assert not features[:-1].any()


async def test_many_alike_in_one_request_take_no_longer_than_some() -> None:
    replica = Replica()
    noise = torch.randn(300, *IMAGES.shape[1:], generator=torch.Generator().manual_seed(1)) / 255
    prints = replica.prints((IMAGES[0] + noise).clamp(0, 1))
    trace = await replica.history.observe(MODEL, "p", prints, POLICY)
    linked = trace.features[:, LENGTH] > 0
    assert 60 <= linked.sum() <= 64
    assert linked[-1]


@pytest.mark.parametrize("set_by_s", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_set_neither_frees_nor_keeps_anybody(set_by_s: float) -> None:
    replica = Replica()
    trace = await replica.history.observe(MODEL, "eve", replica.prints(IMAGES[:1]), POLICY)
    replica.history.alarm(MODEL, "eve", POLICY, trace)
    replica.set_by_s = set_by_s
    assert replica.history.is_quarantined(MODEL, "eve")
    (shown,) = replica.history.standings()["principals"]
    assert shown["quarantined_for_s"] == pytest.approx(600)
    replica.now += 600
    assert not replica.history.is_quarantined(MODEL, "eve")


@pytest.mark.parametrize("set_by_s", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_set_costs_at_most_one_series(set_by_s: float) -> None:
    """Salts change with the epoch: what was asked before may be forgotten, and nothing more is."""
    replica = Replica()
    copies = near_copies(8)
    for x in copies[:3]:
        await replica.ask(x, "eve")
    replica.set_by_s = set_by_s
    found = [await replica.ask(x, "eve") for x in copies[3:]]
    assert found[-1][LENGTH] >= 5


async def test_a_mark_dated_far_ahead_lasts_no_longer_than_any(
    server: RedisServer, tmp_path: Path
) -> None:
    async with replicas(2, server, tmp_path) as (first, second):
        first.set_by_s = 86_400.0
        trace = await first.history.observe(MODEL, "eve", first.prints(IMAGES[:1]), POLICY)
        first.history.alarm(MODEL, "eve", POLICY, trace)
        await first.told()
        await second.ask(IMAGES[1], "eve")
        assert second.history.is_quarantined(MODEL, "eve")
        second.now += 7 * 600 + 1
        assert not second.history.is_quarantined(MODEL, "eve")


async def test_an_imposed_quarantine_lasts_no_longer_than_one_of_its_own(
    server: RedisServer, tmp_path: Path
) -> None:
    forever = config.QueryAttacks(quarantine_minutes=1e6)
    never = config.QueryAttacks(quarantine_minutes=0)
    async with replicas(3, server, tmp_path) as (first, second, third):
        trace = await first.history.observe(MODEL, "eve", first.prints(IMAGES[:1]), forever)
        first.history.alarm(MODEL, "eve", forever, trace)
        await first.told()
        await second.ask(IMAGES[1], "eve")
        assert second.history.is_quarantined(MODEL, "eve")
        second.now += 7 * 600 + 1
        assert not second.history.is_quarantined(MODEL, "eve")
        await third.history.observe(MODEL, "eve", third.prints(IMAGES[1:2]), never)
        assert not third.history.is_quarantined(MODEL, "eve")


# -- workers of one supervisor ---------------------------------------------------------------------


@pytest.fixture
def file() -> Iterator[int]:
    file = memory_file.create()
    yield file
    os.close(file)


def workers(file: int, count: int = 2, **settings: Any) -> list[Replica]:
    return [Replica(file=os.dup(file), **settings) for _ in range(count)]


async def test_a_chain_goes_on_from_worker_to_worker(file: int) -> None:
    both = workers(file)
    lengths = [(await both[i % 2].ask(x))[LENGTH] for i, x in enumerate(near_copies(6))]
    assert lengths == [0, 2, 3, 4, 5, 6]
    assert [each.history.standings()["remembered"] for each in both] == [6, 6]


async def test_a_search_is_followed_from_worker_to_worker(file: int) -> None:
    """Which takes the trail, the salts and the model's answers of all of them."""
    several = workers(file, 3)
    features = [await several[i % 3].ask(x) for i, x in enumerate(binary_search(4))]
    assert [f[HALVING] for f in features] == [0, 0, 0, 1, 2, 3]


async def test_what_the_model_answered_one_worker_the_other_knows(file: int) -> None:
    first, second = workers(file)
    one, other = near_copies(2)
    trace = await first.history.observe(MODEL, "p", first.prints(one[None]), POLICY)
    trace.answered(np.array([[0.0, 0.0, 1.0]], np.float32))
    trace = await second.history.observe(MODEL, "p", second.prints(other[None]), POLICY)
    assert trace.origins == [2]


async def test_quarantine_holds_and_is_lifted_at_all_workers(file: int) -> None:
    first, second = workers(file)
    for worker in (first, second):
        trace = await worker.history.observe(MODEL, "eve", worker.prints(IMAGES[:1]), POLICY)
        worker.history.alarm(MODEL, "eve", POLICY, trace)
        assert all(each.history.is_quarantined(MODEL, "eve") for each in (first, second))
    (standing,) = first.history.standings()["principals"]
    assert (standing["alarms"], standing["penalty"]) == (2, 2.0)  # one penalty, not two of one
    assert await second.history.forget(None, None) == 1
    assert not first.history.is_quarantined(MODEL, "eve")
    assert await first.history.forget(None, None) == 0
    assert (await first.ask(near_copies(1)[0], "eve"))[LENGTH] == 0  # forgiven here as well


async def test_a_worker_that_is_started_anew_finds_the_history(file: int) -> None:
    first, second = near_copies(2)
    for x, length in ((first, 0), (second, 2)):
        (worker,) = workers(file, 1)
        assert (await worker.ask(x))[LENGTH] == length
        await worker.history.close()


async def test_a_memory_that_is_never_free_is_missed_and_counted(file: int) -> None:
    (worker,) = workers(file, 1)
    first, second, third = near_copies(3)
    await worker.ask(first)
    trace = await worker.history.observe(MODEL, "p", worker.prints(second[None]), POLICY)
    hog = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
    fcntl.flock(hog, fcntl.LOCK_EX)
    assert (await worker.ask(third))[LENGTH] == 0
    assert worker.degraded() == 1
    worker.history.alarm(MODEL, "eve", POLICY, trace)
    assert not worker.history.is_quarantined(MODEL, "eve")
    with pytest.raises(TimeoutError):
        await worker.history.forget(None, None)
    os.close(hog)
    await until(lambda: worker.history.is_quarantined(MODEL, "eve"))
    assert (await worker.ask(third))[LENGTH] == 3


async def test_another_version_s_worker_keeps_its_own(
    file: int, caplog: pytest.LogCaptureFixture
) -> None:
    WorkerMemory(os.dup(file), "an older version", 10)
    (worker,) = workers(file, 1)
    assert "of another version" in caplog.text
    assert [(await worker.ask(x))[LENGTH] for x in near_copies(2)] == [0, 2]


async def test_the_capacity_that_all_began_with_stays(
    file: int, caplog: pytest.LogCaptureFixture
) -> None:
    workers(file, 1, capacity=100)
    workers(file, 1, capacity=200)
    assert "history.capacity stays 100" in caplog.text
