"""The records over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator

import aiohttp
import pytest

import proxy.records.endpoints
from proxy.admin import Admin
from proxy.records.endpoints import LABEL_USAGE
from proxy.records.watches import MAX_WATCHES
from tests.proxy.records.flows import flow, suspicious
from tests.proxy.records.telling import Telling, line
from tests.proxy.running import until

HOSTILE = "<script>\x1b[2J\u202e"


@pytest.fixture
def target() -> Telling:
    return Telling()


@pytest.fixture
async def admin(target: Telling) -> AsyncIterator[Admin]:
    admin = Admin(target)
    yield admin
    await target.kept.close()
    await admin.stop()


@pytest.fixture
async def client(admin: Admin) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{await admin.start('127.0.0.1:0')}") as session:
        yield session


async def test_the_newest_first(client: aiohttp.ClientSession, target: Telling) -> None:
    for i in range(3):
        target.kept.note(suspicious(id_=f"r{i}", client_id=HOSTILE))
    async with client.get("/records?limit=2&model=cnn") as response:
        assert response.content_type == "application/json"
        found = await response.json()
    assert [each["id"] for each in found] == ["r2:0", "r1:0"]
    assert found[0]["client_id"] == HOSTILE
    async with client.get("/records?before=1.5") as response:
        assert await response.json() == []


async def test_a_list_is_written_beside_the_event_loop(
    client: aiohttp.ClientSession, target: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_by = []
    dumps = proxy.records.endpoints.json.dumps

    def noted(value: object) -> str:
        written_by.append(threading.get_ident())
        return dumps(value)

    monkeypatch.setattr(proxy.records.endpoints.json, "dumps", noted)
    for i in range(3):
        passed = flow(id_=f"r{i}")
        target.kept.note(passed)
        target.kept.disagree(passed, {0: "suspicious"})
    async with client.get("/records?differing=1") as response:
        found = json.loads(await response.read())
    assert [each["id"] for each in found] == ["r2:0", "r1:0", "r0:0"]
    assert len(written_by) == 3
    assert threading.get_ident() not in written_by
    async with client.get("/records") as response:
        assert json.loads(await response.read()) == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=1001", "limit=x", "before=nan", "before=inf", "before="]
)
async def test_odd_questions_are_refused(client: aiohttp.ClientSession, query: str) -> None:
    async with client.get(f"/records?{query}") as response:
        assert response.status == 400
        assert "limit is a number from 1 to 1000" in await response.text()


async def test_scores(client: aiohttp.ClientSession, target: Telling) -> None:
    target.kept.note(flow())
    async with client.get("/records/scores?model=cnn") as response:
        found = await response.json()
    assert (found["kept"], found["seen"]) == (1, 1)
    assert found["columns"]["scores"] == {"residual": [1.0], "margin": [2.0]}
    async with client.get("/records/scores?model=nobody") as response:
        assert (await response.json())["kept"] == 0
    async with client.get("/records/scores") as response:
        assert response.status == 400


async def test_labels(client: aiohttp.ClientSession, target: Telling) -> None:
    target.kept.note(suspicious())
    for id_, label, status in [
        ("r0:0", "benign", 200),
        ("r0:0", "", 200),
        ("r0:1", "benign", 404),
        (HOSTILE, "adversarial", 404),
    ]:
        async with client.post("/records/label", json={"id": id_, "label": label}) as response:
            assert (response.status, await response.json()) == (status, {"labelled": status == 200})


@pytest.mark.parametrize(
    "body",
    [
        *("", "{}", "[]", "null", '"r0:0"', '{"id": "r0:0"}', '{"id": 1, "label": "benign"}'),
        '{"id": "r0:0", "label": "good"}',
        '{"id": "r0:0", "label": ["benign"]}',
        '{"id": "r0:0", "label": "benign", "more": 1}',
        '{"id": "r0:0", "label": "ben',
        "[" * 60_000,
        b"\xff\xfe",
    ],
)
async def test_nothing_is_labelled_unless_it_is_clearly_said(
    client: aiohttp.ClientSession, target: Telling, body: str | bytes
) -> None:
    target.kept.note(suspicious())
    async with client.post("/records/label", data=body) as response:
        assert (response.status, await response.text()) == (400, LABEL_USAGE)
    assert target.kept.recent()[0].label == ""


async def test_watching(client: aiohttp.ClientSession, target: Telling) -> None:
    async with (
        client.get("/records/watch") as notable,
        client.get("/records/watch?everything=1&model=cnn") as everything,
    ):
        assert notable.content_type == "application/x-ndjson"
        assert await notable.content.readline() == b"\n"  # at once
        target.kept.add(flow(id_="good"))
        target.kept.add(suspicious(id_="bad"))
        assert (await line(notable))["id"] == "bad:0"
        assert [(await line(everything))["id"] for _ in range(2)] == ["good:0", "bad:0"]
        await target.kept.close()
        assert await notable.content.read() == b""


async def test_blank_lines_while_there_is_nothing(
    client: aiohttp.ClientSession, target: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.records.endpoints, "HEARTBEAT_S", 0.001)
    async with client.get("/records/watch") as response:
        assert [await response.content.readline() for _ in range(5)] == [b"\n"] * 5
        target.kept.add(suspicious())
        assert (await line(response))["id"] == "r0:0"


async def test_who_has_gone_makes_room(
    client: aiohttp.ClientSession, target: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.records.endpoints, "HEARTBEAT_S", 0.001)
    watching = [await client.get("/records/watch") for _ in range(MAX_WATCHES)]
    async with client.get("/records/watch") as response:
        assert response.status == 503
        assert "try again" in await response.text()
    for each in watching:
        each.close()

    async def all_have() -> bool:
        return target.kept.watching == 0

    await until(all_have)


async def test_the_listener_stops_though_somebody_watches(target: Telling) -> None:
    admin = Admin(target)
    address = await admin.start("127.0.0.1:0")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}/records/watch") as response,
    ):
        assert await response.content.readline() == b"\n"
        async with asyncio.timeout(1):
            await admin.stop()
    assert target.kept.watching == 0
