"""What the read-only listener shows, what it refuses, and that it stays cheap."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy.admin import Status
from proxy.errors import ConfigError
from proxy.metrics_listener import MOST_CONNECTIONS, MetricsListener, listening
from tests.proxy.running import Recorder, running, until

TEXT = ("text/plain; version=0.0.4; charset=utf-8", b"breakwater_in_flight 0.0\n")


class Shown:
    """A target that counts how often it was asked, and answers when it is let to."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_ready = True
        self.failure: Exception | None = None
        self.text = TEXT[1]
        self.free = asyncio.Event()
        self.free.set()

    async def status(self) -> Status:
        self.asked += 1
        return Status(ready=self.is_ready, draining=False, in_flight=0)

    async def metrics(self) -> tuple[str, bytes]:
        self.asked += 1
        await self.free.wait()
        if self.failure is not None:
            raise self.failure
        return TEXT[0], self.text


@pytest.fixture
async def shown() -> Shown:
    return Shown()


@pytest.fixture
async def url(shown: Shown) -> AsyncIterator[str]:
    async with listening(shown, "127.0.0.1:0") as address:
        yield f"http://{address}"


async def get(url: str, method: str = "GET", **options: object) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, **options) as response,  # type: ignore[arg-type]
    ):
        return response.status, await response.text()


async def test_it_shows_metrics_liveness_and_readiness(url: str, shown: Shown) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        assert (response.headers["Content-Type"], await response.read()) == TEXT
        assert response.headers["Server"] == "breakwater"
        assert response.headers["Connection"] == "close"
    assert await get(f"{url}/live") == (200, "live\n")
    assert await get(f"{url}/ready") == (200, "ready\n")
    assert await get(f"{url}/metrics?name[]=up") == (200, TEXT[1].decode())


async def test_not_ready_is_503_without_details(url: str, shown: Shown) -> None:
    shown.is_ready = False
    assert await get(f"{url}/ready") == (503, "not ready\n")


@pytest.mark.parametrize(
    "path", ["/", "/config", "/records", "/drain", "/console/", "/metrics/", "/x%0Ay", "/../live"]
)
async def test_there_is_nothing_else(url: str, path: str) -> None:
    from yarl import URL

    status, text = await get(URL(url + path, encoded=True))  # type: ignore[arg-type]
    assert (status, text) == (404, "not found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_it_only_reads(url: str, method: str) -> None:
    assert await get(f"{url}/metrics", method) == (405, "method not allowed\n")


async def test_a_failure_shows_no_traceback(url: str, shown: Shown) -> None:
    shown.failure = RuntimeError("secret")
    assert await get(f"{url}/metrics") == (500, "internal error\n")


async def test_a_failure_is_not_what_the_next_gets(url: str, shown: Shown) -> None:
    shown.failure = RuntimeError("once")
    assert (await get(f"{url}/metrics"))[0] == 500
    shown.failure = None
    assert (await get(f"{url}/metrics"))[0] == 200


async def test_two_requests_a_moment_apart_cannot_be_told_apart(url: str, shown: Shown) -> None:
    """The counters of verdicts are as they were: a verdict is not read off them at will."""
    before = await get(f"{url}/metrics")
    shown.text += b"breakwater_samples_total 1.0\n"
    assert await get(f"{url}/metrics") == before


async def test_no_p_value_can_be_read_off_a_sum(url: str, shown: Shown) -> None:
    sums = b'breakwater_detector_p_value_sum{model="m"} 0.91734\n'
    shown.text = b"a 1.0\n" + sums + b'breakwater_detector_p_value_count{model="m"} 1.0\n'
    _, text = await get(f"{url}/metrics")
    assert text == 'a 1.0\nbreakwater_detector_p_value_count{model="m"} 1.0\n'


async def test_many_who_ask_at_once_get_one_answer(url: str, shown: Shown) -> None:
    shown.free.clear()
    asking = [asyncio.ensure_future(get(f"{url}/metrics")) for _ in range(20)]

    async def is_asked() -> bool:
        return shown.asked > 0

    await until(is_asked)
    asking[0].cancel()  # who goes leaves the answer to the others
    with contextlib.suppress(asyncio.CancelledError):
        await asking[0]
    shown.free.set()
    assert await asyncio.gather(*asking[1:]) == [(200, TEXT[1].decode())] * 19
    assert shown.asked == 1


async def test_a_connection_too_many_is_dropped(url: str) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(MOST_CONNECTIONS)]
    reader, writer = await asyncio.open_connection(host, int(port))
    assert await reader.read() == b""
    for _, each in [*idle, (reader, writer)]:
        each.close()

    async def has_room() -> bool:
        try:
            return (await get(f"{url}/live"))[0] == 200
        except aiohttp.ClientError:
            return False

    await until(has_room)


async def test_a_connection_that_asks_nothing_does_not_stay(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.metrics_listener.LIFETIME_S", 0.05)
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_a_large_body_or_head_is_refused(url: str) -> None:
    status, _ = await get(f"{url}/metrics", "GET", headers={"X": "y" * 20_000})
    assert status == 400
    status, _ = await get(f"{url}/metrics", "POST", data=b"x" * 1_000_000)
    assert status == 405


async def test_off_by_default() -> None:
    async with listening(Shown(), None) as address:
        assert address == ""


async def test_an_address_in_use_is_an_error_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on .* \(metrics\)"):
        async with listening(Shown(), url.removeprefix("http://")):
            raise AssertionError


async def test_it_does_not_keep_its_target_alive() -> None:
    target = Shown()
    gone = weakref.ref(target)
    listener = MetricsListener(target)
    await listener.start("127.0.0.1:0")
    await listener.stop()
    del target
    gc.collect()
    assert gone() is None


async def test_a_running_proxy_shows_what_its_admin_port_shows(
    recorder: tuple[Recorder, str],
) -> None:
    async with running(recorder[1], metrics="127.0.0.1:0", models={"m": {}}) as sidecar:
        at = f"http://{sidecar.server.metrics_address}"
        status, body = await get(f"{at}/metrics")
        assert status == 200
        assert "breakwater_upstream_ready 1.0" in body
        assert await get(f"{at}/ready") == (200, "ready\n")
        assert (await get(f"{at}/config"))[0] == 404
