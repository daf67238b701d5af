"""A server's life in one process: start, drain, reload, stop. Signals are in test_cli.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from proxy.config import Config
from proxy.errors import ConfigError
from proxy.pb import open_inference_pb2 as pb
from proxy.server import Server
from tests.builders import infer_request
from tests.proxy.running import (
    UNBOUNDED,
    Call,
    Recorder,
    Running,
    ask,
    check_health,
    open_stream,
    relayed,
    running,
    until,
)

INFER = infer_request({"image": np.zeros((1, 4), np.float32)}, model="m").SerializeToString()
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def admin(sidecar: Running, path: str, method: str = "GET") -> tuple[int, dict[str, object]]:
    url = f"http://{sidecar.server.admin_address}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        return response.status, await response.json()


def health(sidecar: Running, service: str = "") -> grpc.aio.UnaryStreamCall:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(sidecar.channel).Watch(request, timeout=30)


class Held:
    """Answers of a recorder that wait for a word."""

    def __init__(self, recorder: Recorder) -> None:
        self.release = asyncio.Event()
        recorder.answers["ModelInfer"] = self.unary
        recorder.stream = self.stream

    async def unary(self, call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await self.release.wait()
        return call.data

    async def stream(self, call: Call, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            await self.release.wait()
            await context.write(data)


# -- drain ---------------------------------------------------------------------------------------


async def test_a_drain_refuses_the_new_and_finishes_the_old(
    recorder: tuple[Recorder, str],
) -> None:
    held = Held(recorder[0])
    async with running(recorder[1]) as sidecar:
        asking = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", INFER))
        stream = open_stream(sidecar.channel)
        await stream.write(INFER)
        await recorder[0].expect("ModelStreamInfer")
        await sidecar.busy(2)
        watches = {name: health(sidecar, name) for name in ("", "readiness", "liveness")}
        for watch in watches.values():
            assert (await watch.read()).status == SERVING

        status, body = await admin(sidecar, "/drain", "POST")
        assert (status, body["draining"], body["in_flight"]) == (202, True, 2)
        assert (await admin(sidecar, "/ready"))[0] == 503
        assert (await watches[""].read()).status == NOT_SERVING
        assert (await watches["readiness"].read()).status == NOT_SERVING
        refused = await ask(sidecar.channel, "ModelInfer", INFER)
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert refused.details == "the server is shutting down"
        assert (await ask(sidecar.channel, "ModelMetadata", b"")).code is refused.code
        assert await open_stream(sidecar.channel).code() is refused.code
        for name in ("ServerReady", "ModelReady"):
            reply = await ask(sidecar.channel, name, b"")
            assert not pb.ServerReadyResponse.FromString(reply.data).ready
        assert (await ask(sidecar.channel, "ServerLive", b"")).code is grpc.StatusCode.OK

        held.release.set()
        assert (await asking).data == INFER
        assert await stream.read() == INFER
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
        # Watches end with the server, not with an error; nothing listens afterwards.
        for watch in watches.values():
            assert await watch.read() is grpc.aio.EOF
            assert await watch.code() is grpc.StatusCode.OK
        await until(lambda: _refuses(sidecar.address))


async def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_drain_gives_up_after_its_time(
    recorder: tuple[Recorder, str], caplog: pytest.LogCaptureFixture
) -> None:
    Held(recorder[0])
    async with running(recorder[1], drain_seconds=0.05) as sidecar:
        asking = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", INFER))
        call = await recorder[0].expect("ModelInfer")
        await sidecar.server.drain()
        await sidecar.server.drain()  # again is harmless
        assert (await asking).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await asyncio.wait_for(call.cancelled.wait(), 5)
        await until(lambda: _refuses(sidecar.address))
    assert "gave up on 1 requests" in caplog.text


async def test_a_drain_waits_until_the_last_answer_has_left(
    recorder: tuple[Recorder, str],
) -> None:
    body = bytes(20_000_000)

    async def answer(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        return body

    recorder[0].answers["ModelInfer"] = answer
    async with (
        running(recorder[1], drain_seconds=20) as sidecar,
        relayed(sidecar.address) as relay,
        grpc.aio.insecure_channel(relay.address, options=UNBOUNDED) as channel,
    ):
        # A second call keeps the connection: a server that closes one while a window update is on
        # its way resets it, and the last of the answer may be lost in the kernel.
        reflection = ServerReflectionStub(channel).ServerReflectionInfo(timeout=20)
        await reflection.write(ServerReflectionRequest(list_services=""))
        await reflection.read()
        relay.open.clear()  # from here on the client's network takes nothing
        asking = asyncio.ensure_future(ask(channel, "ModelInfer", INFER))
        await recorder[0].expect("ModelInfer")
        await sidecar.server.drain()
        await asyncio.wait([asking], timeout=0.6)
        relay.open.set()
        reply = await asking
        assert (reply.code, len(reply.data)) == (grpc.StatusCode.OK, len(body))
        reflection.cancel()


async def test_an_idle_server_drains_at_once(recorder: tuple[Recorder, str]) -> None:
    async with running(recorder[1], drain_seconds=60) as sidecar:
        watch = health(sidecar)
        await watch.read()
        async with asyncio.timeout(5):
            await sidecar.server.drain()
            assert (await watch.read()).status == NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
            await until(lambda: _refuses(sidecar.address))


# -- start and stop ------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["listen", "admin"])
async def test_a_taken_address_is_a_config_error_and_nothing_stays(
    field: str, recorder: tuple[Recorder, str]
) -> None:
    before = asyncio.all_tasks()
    with socket.socket() as taken, socket.socket() as free:
        for sock in (taken, free):
            sock.bind(("127.0.0.1", 0))
        taken.listen()
        free_port = free.getsockname()[1]
        free.close()
        settings = {
            "upstream": recorder[1],
            "listen": f"127.0.0.1:{free_port}",
            "admin": "127.0.0.1:0",
            field: f"127.0.0.1:{taken.getsockname()[1]}",
        }
        server = Server(Config.model_validate(settings))
        with pytest.raises(ConfigError, match=f"cannot listen on {settings[field]}"):
            await server.start()
    if field == "admin":
        await until(lambda: _refuses(settings["listen"]))
    await until(lambda: _same_tasks(before))


async def _same_tasks(before: set[asyncio.Task]) -> bool:
    return asyncio.all_tasks() <= before


async def test_stop_leaves_no_task(recorder: tuple[Recorder, str], tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    path = tmp_path / "c.yaml"
    path.write_text("max_in_flight: 3\n")
    async with running(recorder[1], path=path) as sidecar:
        assert (await ask(sidecar.channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK
    await until(lambda: _same_tasks(before))


async def test_stop_cancels_what_is_in_flight(recorder: tuple[Recorder, str]) -> None:
    Held(recorder[0])
    async with running(recorder[1]) as sidecar:
        asking = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", INFER))
        call = await recorder[0].expect("ModelInfer")
        await asyncio.gather(*(sidecar.server.stop(grace_s=0) for _ in range(3)))
        assert (await asking).code is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(call.cancelled.wait(), 5)


# -- reload --------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    """As editors and Kubernetes do it: a new file in the old one's place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


async def _generation(sidecar: Running) -> float:
    return await sidecar.metric("config_generation")


async def _code(sidecar: Running, name: str) -> grpc.StatusCode:
    return (await ask(sidecar.channel, name, b"")).code


async def test_a_reload_is_whole_or_nothing(recorder: tuple[Recorder, str], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("rpc: {allow: [statistics]}\n")
    denied, ok = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK
    async with running(recorder[1], path=path) as sidecar:
        assert await _code(sidecar, "ModelStatistics") is ok
        assert await _code(sidecar, "ModelConfig") is denied

        _write(path, "rpc: {allow: [model-config]}\nmodels: {m: {}}\nmax_in_flight: 9\n")
        assert (await admin(sidecar, "/reload", "POST"))[0] == 200
        assert await _generation(sidecar) == 2
        assert await _code(sidecar, "ModelStatistics") is denied
        assert await _code(sidecar, "ModelConfig") is ok
        config = (await admin(sidecar, "/config"))[1]
        assert (config["max_in_flight"], config["upstream"]) == (9, recorder[1])

        async def knows_the_model() -> bool:
            return await check_health(sidecar.channel, "m") == SERVING

        await until(knows_the_model)

        for wrong in ("rpc: {allow: [everything]}\n", "rpc: [", "calibration: 7\n"):
            _write(path, wrong)
            assert (await admin(sidecar, "/reload", "POST"))[0] == 409
            assert await _code(sidecar, "ModelConfig") is ok
        assert await _generation(sidecar) == 2
        assert await sidecar.metric("config_reload_failures_total") == 3
        assert await sidecar.metric("config_last_reload_successful") == 0

        _write(path, "rpc: {allow: []}\n")
        assert (await admin(sidecar, "/reload", "POST"))[0] == 200
        assert await sidecar.metric("config_last_reload_successful") == 1
        assert await _code(sidecar, "ModelConfig") is denied
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

        async def forgot_the_model() -> bool:
            return await check_health(sidecar.channel, "m") == unknown

        await until(forgot_the_model)


async def test_a_changed_file_is_noticed(recorder: tuple[Recorder, str], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("scrub_errors: false\n")

    async def fail(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "/secret")
        return b""

    recorder[0].answers["ModelInfer"] = fail
    async with running(recorder[1], path=path) as sidecar:
        assert (await ask(sidecar.channel, "ModelInfer", INFER)).details == "/secret"
        _write(path, "scrub_errors: true\n")
        await until(_reached(sidecar, 2))
        assert "secret" not in (await ask(sidecar.channel, "ModelInfer", INFER)).details


def _reached(sidecar: Running, generation: int) -> Callable:
    async def condition() -> bool:
        return await _generation(sidecar) == generation

    return condition


async def test_a_reload_harms_nothing_in_flight(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    held = Held(recorder[0])
    path = tmp_path / "c.yaml"
    path.write_text("max_in_flight: 1\n")
    async with running(recorder[1], path=path) as sidecar:
        asking = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", INFER))
        await recorder[0].expect("ModelInfer")
        _write(path, "unlisted_models: refuse\nmodels: {m: {}}\n")
        assert await sidecar.server.reload()
        held.release.set()
        assert (await asking).data == INFER
        other = infer_request({"image": np.zeros((1, 4), np.float32)}, model="other")
        assert (await ask(sidecar.channel, "ModelInfer", other)).code is (
            grpc.StatusCode.PERMISSION_DENIED
        )
        assert (await ask(sidecar.channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK


async def test_without_a_file_there_is_nothing_to_reload(recorder: tuple[Recorder, str]) -> None:
    async with running(recorder[1]) as sidecar:
        assert not await sidecar.server.reload()
        assert await _generation(sidecar) == 1
