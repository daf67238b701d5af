"""The admin listener over real HTTP, on a free port and on a Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from proxy.admin import CLEAR_USAGE, INDEX, MAX_BODY_BYTES, Admin, Status


class FakeTarget:
    """A proxy with three requests in flight."""

    def __init__(self) -> None:
        self.drained = 0
        self.can_reload = True
        self.broken = False
        self.forgotten: list[tuple[str | None, str | None]] = []

    async def status(self) -> Status:
        return Status(ready=not self.drained, draining=bool(self.drained), in_flight=3)

    async def drain(self, mode: str = "exit") -> None:
        self.drained += 1

    async def reload(self) -> bool:
        return self.can_reload

    async def config(self) -> Mapping[str, Any]:
        return {"listen": "a:1"}

    async def metrics(self) -> tuple[str, bytes]:
        if self.broken:
            raise RuntimeError("/etc/secret is unreadable")
        return "text/plain; version=1.0.0; charset=utf-8", b"breakwater_up 1\n"

    async def history(self) -> Mapping[str, Any]:
        return {"remembered": 7, "shared": None, "principals": []}

    async def forget(self, principal: str | None, model: str | None) -> int:
        self.forgotten.append((principal, model))
        return len(self.forgotten)


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
async def client(target: FakeTarget) -> AsyncIterator[aiohttp.ClientSession]:
    admin = Admin(target)
    address = await admin.start("127.0.0.1:0")
    assert not address.endswith(":0")
    async with aiohttp.ClientSession(f"http://{address}") as session:
        yield session
    await admin.stop()


async def test_index_names_every_endpoint(client: aiohttp.ClientSession) -> None:
    async with client.get("/") as response:
        assert (response.status, await response.text()) == (200, INDEX)
        assert response.headers["Server"] == "breakwater"


async def test_metrics_keep_their_content_type(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
        assert await response.read() == b"breakwater_up 1\n"


async def test_ready_until_drained_but_live_throughout(client: aiohttp.ClientSession) -> None:
    async with client.get("/ready") as response:
        assert response.status == 200
    for _ in range(2):  # idempotent
        async with client.post("/drain") as response:
            assert response.status == 202
            status = await response.json()
            assert (status["in_flight"], status["draining"]) == (3, True)
    async with client.get("/ready") as response:
        assert response.status == 503
        assert (await response.json())["ready"] is False
    async with client.get("/live") as response:
        assert response.status == 200


async def test_a_process_that_cannot_go_on_says_so(target: FakeTarget) -> None:
    admin = Admin(target, is_alive=lambda: False)
    address = await admin.start("127.0.0.1:0")
    async with (
        aiohttp.ClientSession(f"http://{address}") as session,
        session.get("/live") as response,
    ):
        assert (response.status, "device" in await response.text()) == (503, True)
    await admin.stop()


async def test_reload_tells_whether_it_was_refused(
    client: aiohttp.ClientSession, target: FakeTarget
) -> None:
    async with client.post("/reload") as response:
        assert response.status == 200
    target.can_reload = False
    async with client.post("/reload") as response:
        assert response.status == 409


async def test_config_is_json(client: aiohttp.ClientSession) -> None:
    async with client.get("/config") as response:
        assert await response.json() == {"listen": "a:1"}


async def test_history_is_json(client: aiohttp.ClientSession) -> None:
    async with client.get("/history") as response:
        assert await response.json() == {"remembered": 7, "shared": None, "principals": []}


@pytest.mark.parametrize(
    ("query", "whose"),
    [
        ("principal=eve", ("eve", None)),
        ("principal=ipv4%3A10.0.0.1%3A5&model=cnn", ("ipv4:10.0.0.1:5", "cnn")),
        ("principal=a%2Bb%26all%3D1+%25%1B%F0%9F%98%88", ("a+b&all=1 %\x1b\U0001f608", None)),
        ("principal=", ("", None)),
        ("all=1", (None, None)),
        ("model=cnn&all=1", (None, "cnn")),
    ],
)
async def test_clear_reaches_those_named(
    client: aiohttp.ClientSession,
    target: FakeTarget,
    query: str,
    whose: tuple[str | None, str | None],
) -> None:
    async with client.post(URL(f"/history/clear?{query}", encoded=True)) as response:
        assert (response.status, await response.json()) == (200, {"cleared": 1})
    assert target.forgotten == [whose]


@pytest.mark.parametrize(
    "query",
    [
        *("", "model=cnn", "all=0", "all=", "all=yes&principal=eve", "all=1&principal=eve"),
        *("principal=eve&principal=bob", "all=1&all=1", "principle=eve", "all=1&modle=cnn"),
    ],
)
async def test_nothing_is_cleared_unless_it_is_clearly_said(
    client: aiohttp.ClientSession, target: FakeTarget, query: str
) -> None:
    async with client.post(f"/history/clear?{query}") as response:
        assert (response.status, await response.text()) == (400, CLEAR_USAGE)
    assert target.forgotten == []


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/nothing", 404, "not found\n"),
        ("GET", "/drain", 405, "method not allowed\n"),
        ("POST", "/metrics", 405, "method not allowed\n"),
        ("GET", "/history/clear?all=1", 405, "method not allowed\n"),
    ],
)
async def test_refusals_are_fixed_texts(
    client: aiohttp.ClientSession, method: str, path: str, status: int, text: str
) -> None:
    async with client.request(method, path) as response:
        assert (response.status, await response.text()) == (status, text)


async def test_a_defect_shows_no_details(client: aiohttp.ClientSession, target: FakeTarget) -> None:
    target.broken = True
    async with client.get("/metrics") as response:
        assert (response.status, await response.text()) == (500, "internal error\n")


async def test_large_bodies_are_refused(client: aiohttp.ClientSession, target: FakeTarget) -> None:
    async with client.post("/drain", data=BytesIO(bytes(MAX_BODY_BYTES + 1))) as response:
        assert response.status == 413
    assert target.drained == 0
    async with client.post("/drain", data=b"x" * 100) as response:
        assert response.status == 202


async def test_web_pages_cannot_steer_the_proxy(
    client: aiohttp.ClientSession, target: FakeTarget
) -> None:
    for path in ("/drain", "/history/clear?all=1"):
        async with client.post(path, headers={"Origin": "https://evil.example"}) as response:
            assert response.status == 403
    assert target.drained == 0
    assert target.forgotten == []


async def test_unix_socket(target: FakeTarget, tmp_path: Path) -> None:
    admin = Admin(target)
    address = await admin.start(tmp_path / "admin.sock")
    assert address == str(tmp_path / "admin.sock")
    connector = aiohttp.UnixConnector(path=address)
    async with (
        aiohttp.ClientSession("http://worker", connector=connector) as session,
        session.get("/ready") as response,
    ):
        assert response.status == 200
    await admin.stop()


async def test_a_taken_port_is_an_error(target: FakeTarget) -> None:
    first, second = Admin(target), Admin(target)
    address = await first.start("127.0.0.1:0")
    with pytest.raises(OSError, match="address already in use"):
        await second.start(address)
    await first.stop()
    await second.stop()
