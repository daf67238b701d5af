"""Several workers' records as one, some of them dead, slow or replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import proxy.records.workers
from proxy.admin import Admin
from proxy.records.watches import MAX_WATCHES, TooManyWatches
from proxy.records.workers import Workers
from tests.proxy.records.flows import flow, pick, sample, stream, suspicious
from tests.proxy.records.telling import Telling
from tests.proxy.running import until


class Fleet:
    """Workers behind Unix sockets, and who asks them."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        self.sockets = [folder / f"worker-{i}.sock" for i in range(count)]
        self.targets: list[Telling] = []
        self.admins: list[Admin] = []
        self.dropped: list[int] = []
        self.workers = Workers(self.sockets, self.dropped.append)

    async def start(self, index: int) -> Telling:
        target = Telling()
        admin = Admin(target)
        await admin.start(self.sockets[index])
        self.targets.insert(index, target)
        self.admins.insert(index, admin)
        return target

    async def end(self, index: int) -> None:
        await self.targets.pop(index).kept.close()
        await self.admins.pop(index).stop()
        self.sockets[index].unlink(missing_ok=True)

    async def followed(self, *targets: Telling) -> None:
        async def all_are() -> bool:
            return all(target.kept.watching for target in targets)

        await until(all_are)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    await fleet.start(0)
    await fleet.start(1)
    yield fleet
    fleet.workers.close()
    while fleet.targets:
        await fleet.end(0)


async def test_lists_are_merged_newest_first(fleet: Fleet) -> None:
    for i in range(6):
        fleet.targets[i % 2].kept.note(suspicious(id_=f"r{i}"))
    found = await fleet.workers.records(None, 4)
    assert len(found) == 4
    assert [each["time_s"] for each in found] == sorted(
        (each["time_s"] for each in found), reverse=True
    )
    assert await fleet.workers.records("a&limit=9 \x1b", 4, 1.0) == []


async def test_disagreements_of_all_workers(fleet: Fleet) -> None:
    for i, target in enumerate(fleet.targets):
        passed = flow(id_=f"r{i}")
        target.kept.note(passed)
        target.kept.disagree(passed, {0: "suspicious"})
        target.kept.note(suspicious(id_=f"bad{i}"))
    found = await fleet.workers.records(None, 9, differing=True)
    assert {each["id"] for each in found} == {"r0:0", "r1:0"}


async def test_scores_are_those_of_one_process(fleet: Fleet) -> None:
    whole = Telling()
    for i, each in enumerate(stream(300)):
        for target in (fleet.targets[i % 2], whole):
            target.kept.add(each)
    copy = flow(sample((1.0, 2.0)))
    for target in (*fleet.targets, whole):
        target.kept.add(copy)
    found, expected = await fleet.workers.scores("cnn"), await whole.scores("cnn")
    assert (found["kept"], found["seen"]) == (301, 302)
    names = ("id", "hash", "principal", "fused")
    assert pick(found["columns"], *names) == pick(expected["columns"], *names)
    assert found["defence"] == expected["defence"]
    assert (await fleet.workers.scores("no&model=cnn"))["kept"] == 0


async def test_a_label_finds_its_worker(fleet: Fleet) -> None:
    fleet.targets[1].kept.note(suspicious(id_="bad"))
    assert await fleet.workers.label("bad:0", "adversarial")
    assert not await fleet.workers.label("nobody:0", "adversarial")
    assert (await fleet.workers.records(None, 1))[0]["label"] == "adversarial"
    assert (await fleet.workers.scores("cnn"))["columns"]["label"] == ["adversarial"]


async def test_dead_workers_are_done_without(fleet: Fleet) -> None:
    fleet.targets[0].kept.note(suspicious(id_="lost"))
    fleet.targets[1].kept.note(suspicious(id_="bad"))
    await fleet.end(0)
    assert [each["id"] for each in await fleet.workers.records(None, 9)] == ["bad:0"]
    assert (await fleet.workers.scores("cnn"))["kept"] == 1
    assert await fleet.workers.label("bad:0", "benign")
    assert not await fleet.workers.label("lost:0", "benign")


@pytest.mark.parametrize("answer", ["slow", "error", "nonsense"])
async def test_a_worker_out_of_order_is_done_without(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(proxy.records.workers, "ASK_S", 0.2)
    monkeypatch.setattr(proxy.records.workers, "SCORES_S", 0.2)
    fleet.targets[1].kept.note(suspicious(id_="bad"))
    await fleet.end(0)
    released = asyncio.Event()

    async def odd(_: web.Request) -> web.Response:
        if answer == "slow":
            await released.wait()
        if answer == "error":
            return web.Response(status=500, text="internal error\n")
        return web.json_response({"columns": 7})

    app = web.Application()
    app.add_routes([web.route("*", "/{tail:.*}", odd)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(fleet.sockets[0])).start()
    assert [each["id"] for each in await fleet.workers.records(None, 9)] == ["bad:0"]
    assert (await fleet.workers.scores("cnn"))["kept"] == 1
    assert await fleet.workers.label("bad:0", "benign")
    watch = fleet.workers.watch(None, False)
    reading = asyncio.ensure_future(anext(watch))
    await fleet.followed(fleet.targets[0])
    fleet.targets[0].kept.note(suspicious(id_="worse"))
    assert (await reading)["id"] == "worse:0"
    await watch.aclose()  # type: ignore[attr-defined]
    released.set()
    await runner.cleanup()


async def test_a_watch_hears_all_and_whoever_replaces_them(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.records.workers, "RETRY_S", 0.001)
    watch = fleet.workers.watch("cnn", True)
    first = asyncio.ensure_future(anext(watch))
    await fleet.followed(*fleet.targets)
    fleet.targets[0].kept.add(flow(id_="zero"))
    assert (await first)["id"] == "zero:0"
    fleet.targets[1].kept.add(suspicious(id_="one"))
    assert (await anext(watch))["id"] == "one:0"
    await fleet.end(0)
    fresh = await fleet.start(0)
    await fleet.followed(fresh)
    fresh.kept.add(flow(id_="again"))
    assert (await anext(watch))["id"] == "again:0"
    fleet.workers.close()
    assert await anext(watch, None) is None


async def test_no_more_watches_than_may_be(fleet: Fleet) -> None:
    opened: list[Any] = [fleet.workers.watch(None, False) for _ in range(MAX_WATCHES)]
    with pytest.raises(TooManyWatches):
        fleet.workers.watch(None, False)
    opened.clear()
    fleet.workers.watch(None, False)
