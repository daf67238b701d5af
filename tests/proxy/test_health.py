"""The health service over real connections; the first two tests are why it is our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proxy import health
from proxy.health import HealthServicer
from tests.proxy.running import LIMIT_S

Request, Response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse


class Scene:
    """A servicer, its server, and connections to it."""

    def __init__(self, servicer: HealthServicer, server: grpc.aio.Server, address: str) -> None:
        self.servicer = servicer
        self.server = server
        self.address = address
        self.channel = grpc.aio.insecure_channel(address)
        self.stub = health_pb2_grpc.HealthStub(self.channel)

    def watch(self, service: str = "") -> grpc.aio.UnaryStreamCall:
        return self.stub.Watch(Request(service=service), timeout=LIMIT_S)

    async def check(self, service: str = "") -> int:
        return (await self.stub.Check(Request(service=service), timeout=LIMIT_S)).status


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    servicer = HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    scene = Scene(servicer, server, f"127.0.0.1:{port}")
    yield scene
    servicer.close()
    await scene.channel.close()
    await server.stop(0)


async def test_a_watcher_that_leaves_takes_nothing_from_the_others(scene: Scene) -> None:
    scene.servicer.publish({"": True})
    leaving, staying = scene.watch(), scene.watch()
    for call in (leaving, staying):
        assert (await call.read()).status == Response.SERVING
    leaving.cancel()
    for serving in (False, True, False, True):
        await scene.check()  # the server has seen the cancellation by then, or by the next
        scene.servicer.publish({"": serving})
        wanted = Response.SERVING if serving else Response.NOT_SERVING
        assert (await staying.read()).status == wanted


# What an HTTP/2 client says whose window is closed from the start: preface, SETTINGS with
# INITIAL_WINDOW_SIZE 0. Then the headers of Watch, literally encoded, and an empty message.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def _headers(**pairs: str) -> bytes:
    out = b""
    for key, value in pairs.items():
        name = key.replace("__", ":").replace("_", "-").encode()
        out += b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value.encode()
    return out


async def test_a_watcher_that_does_not_read_holds_up_nobody(scene: Scene) -> None:
    scene.servicer.publish({"": True})
    host, _, port = scene.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = _headers(
        __method="POST",
        __scheme="http",
        __path="/grpc.health.v1.Health/Watch",
        __authority="a",
        te="trailers",
        content_type="application/grpc",
    )
    writer.write(
        PREFACE
        + _frame(4, 0, 0, b"\x00\x04" + bytes(4))  # SETTINGS
        + _frame(1, 4, 1, headers)  # HEADERS, END_HEADERS
        + _frame(0, 1, 1, bytes(5))  # DATA, END_STREAM
    )
    seen = b""
    while b"application/grpc" not in seen and b"\x01\x04\x00\x00\x00\x01" not in seen:
        seen += await asyncio.wait_for(reader.read(4096), LIMIT_S)  # until the call's own headers
    other = scene.watch()
    assert (await other.read()).status == Response.SERVING
    scene.servicer.publish({"": False})
    assert (await other.read()).status == Response.NOT_SERVING
    assert await scene.check() == Response.NOT_SERVING
    writer.close()


async def test_check_knows_what_was_published(scene: Scene) -> None:
    for service in ("", "model"):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await scene.check(service)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    scene.servicer.publish({"": False, "model": True})
    assert await scene.check() == Response.NOT_SERVING
    assert await scene.check("model") == Response.SERVING
    scene.servicer.publish({"": True})
    assert await scene.check() == Response.SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await scene.check("model")


async def test_watch_follows_a_service_that_comes_and_goes(scene: Scene) -> None:
    call = scene.watch("model")
    assert (await call.read()).status == Response.SERVICE_UNKNOWN
    for states, wanted in (
        ({"model": True}, Response.SERVING),
        ({"model": False, "other": True}, Response.NOT_SERVING),
        ({}, Response.SERVICE_UNKNOWN),
    ):
        scene.servicer.publish(states)
        assert (await call.read()).status == wanted


async def test_close_ends_watches_with_the_last_word(scene: Scene) -> None:
    scene.servicer.publish({"": True})
    call = scene.watch()
    assert (await call.read()).status == Response.SERVING
    scene.servicer.publish({"": False})
    scene.servicer.close()
    assert (await call.read()).status == Response.NOT_SERVING
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_watchers_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_WATCHERS", 2)
    scene.servicer.publish({"": True})
    held = [scene.watch() for _ in range(2)]
    for call in held:
        await call.read()
    assert await scene.watch().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
