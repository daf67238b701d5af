"""The health of the proxy: its own, Triton's, and each model's."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proxy import rpc
from proxy.config import Config
from proxy.defences import Defences
from proxy.errors import ProxyError, UpstreamError, UpstreamUnavailable
from proxy.metrics import Metrics
from proxy.monitor import Monitor
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Answer, Metadata, Upstream
from tests.proxy.running import Call, Recorder, Running, check_health, running, until
from tuning.triton import EmbeddedTriton

READY = ("", "readiness", rpc.SERVICE)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def watch(channel: grpc.aio.Channel, service: str) -> grpc.aio.UnaryStreamCall:
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30)


MODELS = {"digits_like": {}, "identity_bytes": {}, "nonesuch": {}}


@pytest.fixture
async def sidecar(triton: EmbeddedTriton) -> AsyncIterator[Running]:
    async with running(triton.grpc_address, models=MODELS) as sidecar:
        yield sidecar


@pytest.mark.triton
async def test_every_service_has_its_state(sidecar: Running) -> None:
    expected = dict.fromkeys((*READY, "liveness", "digits_like", "identity_bytes"), SERVING)
    # A configured model that Triton does not serve is unwell; the others are not held up by it.
    expected |= {"nonesuch": NOT_SERVING, "slow": UNKNOWN, "anything": UNKNOWN}
    assert {s: await check_health(sidecar.channel, s) for s in expected} == expected


@pytest.mark.triton
async def test_watchers_see_triton_stop_and_come_back(
    sidecar: Running, triton: EmbeddedTriton
) -> None:
    watches = {s: watch(sidecar.channel, s) for s in (*READY, "digits_like")}
    alive = watch(sidecar.channel, "liveness")
    for call in (*watches.values(), alive):
        assert (await call.read()).status == SERVING
    os.kill(triton.pid, signal.SIGSTOP)
    try:
        for call in watches.values():
            assert (await call.read()).status == NOT_SERVING
    finally:
        os.kill(triton.pid, signal.SIGCONT)
    for call in watches.values():
        assert (await call.read()).status == SERVING
    alive.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alive.read()


async def test_liveness_is_the_process_alone(recorder: tuple[Recorder, str]) -> None:
    async def down(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return b""

    recorder[0].answers["ServerReady"] = down
    async with running(recorder[1], models={"m": {}}) as sidecar:
        states = [await check_health(sidecar.channel, s) for s in (*READY, "m", "liveness")]
    assert states == [NOT_SERVING] * 4 + [SERVING]


async def test_whether_triton_is_ready_is_a_metric_of_its_own(
    recorder: tuple[Recorder, str],
) -> None:
    async with running(recorder[1], models={"m": {}}) as sidecar:
        assert await sidecar.metric("upstream_ready") == 1

        async def down(call: Call, context: grpc.aio.ServicerContext) -> bytes:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            return b""

        recorder[0].answers["ServerReady"] = down
        await until(lambda: reads(sidecar, 0))
        del recorder[0].answers["ServerReady"]
        await until(lambda: reads(sidecar, 1))


async def reads(sidecar: Running, expected: float) -> bool:
    return await sidecar.metric("upstream_ready") == expected


# -- the loop by itself ------------------------------------------------------------------------


class Scene:
    """A monitor in front of a recorder whose answers can be changed."""

    def __init__(self, recorder: Recorder, address: str, models: dict[str, dict]) -> None:
        self.recorder = recorder
        self.upstream = Upstream(address, max_message_bytes=1_000_000)
        self.metrics = Metrics()
        self.monitor = Monitor(self.upstream, self.defences(models), self.metrics.upstream_ready)

    def defences(self, models: dict[str, dict]) -> Defences:
        return Defences(Config.model_validate({"models": models}), self.metrics)

    def ready(self, name: str, answer: bool | bytes) -> None:
        body = answer
        if isinstance(answer, bool):
            body = pb.ServerReadyResponse(ready=answer).SerializeToString()

        async def say(call: Call, context: grpc.aio.ServicerContext) -> bytes:
            assert isinstance(body, bytes)
            return body

        self.recorder.answers[name] = say

    async def states(self) -> dict[str, int]:
        """What Check says of every service that anybody could ask for."""
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(self.monitor.health, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            states = {s: await check_health(channel, s) for s in ("", "liveness", "a", "b")}
        await server.stop(0)
        return states


@pytest.fixture
async def scene(recorder: tuple[Recorder, str]) -> AsyncIterator[Scene]:
    scene = Scene(*recorder, models={"a": {}, "liveness": {}})
    yield scene
    await scene.upstream.close()


@pytest.mark.parametrize(
    ("server", "model", "expected"),
    [
        (True, True, (SERVING, SERVING)),
        (False, True, (NOT_SERVING, NOT_SERVING)),
        (True, False, (SERVING, NOT_SERVING)),
        (b"", True, (NOT_SERVING, NOT_SERVING)),  # protobuf's false
        (b"\xff\xff", True, (NOT_SERVING, NOT_SERVING)),  # not Triton
    ],
)
async def test_a_tick_publishes_what_triton_says(
    server: bool | bytes, model: bool, expected: tuple[int, int], scene: Scene
) -> None:
    scene.ready("ServerReady", server)
    scene.ready("ModelReady", model)
    await scene.monitor.tick()
    states = await scene.states()
    assert (states[""], states["a"]) == expected
    assert states["liveness"] == SERVING  # also when a model of that name is not
    assert scene.monitor.is_ready is (expected[0] == SERVING)


async def test_a_reload_changes_the_services(scene: Scene) -> None:
    await scene.monitor.tick()
    assert (await scene.states())["a"] == SERVING
    scene.monitor.use(scene.defences({"b": {}}))
    await scene.monitor.tick()
    assert await scene.states() == {"": SERVING, "liveness": SERVING, "a": UNKNOWN, "b": SERVING}


async def test_draining_is_for_good(scene: Scene) -> None:
    await scene.monitor.tick()
    scene.monitor.drain()
    await scene.monitor.tick()
    await scene.monitor.run()  # there is nothing left to watch
    assert await scene.states() == {
        **dict.fromkeys(("", "a"), NOT_SERVING),
        "liveness": SERVING,
        "b": UNKNOWN,
    }
    assert not scene.monitor.is_ready


async def test_a_triton_that_hangs_is_found_out_however_many_models_there_are(
    recorder: tuple[Recorder, str],
) -> None:
    async def never(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.Event().wait()
        return b""

    scene = Scene(*recorder, models={"a": {}} | {f"m{i}": {} for i in range(50)})
    await scene.monitor.tick(refresh=True)
    assert (await scene.states())["a"] == SERVING
    recorder[0].answers["ModelReady"] = never
    async with asyncio.timeout(8):
        await scene.monitor.tick()
    assert (await scene.states())["a"] == NOT_SERVING
    await scene.upstream.close()


class BrokenDefences:
    """A defect of our own."""

    async def rotate(self) -> None:
        return None

    def models(self) -> list:
        raise RuntimeError("a defect")


async def test_the_loop_outlives_a_defect_and_is_not_ready_meanwhile(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.monitor.tick()
    good = scene.defences({})
    loop = asyncio.ensure_future(scene.monitor.run())
    scene.monitor.use(BrokenDefences())  # type: ignore[arg-type]

    async def is_ready() -> bool:
        return scene.monitor.is_ready

    async def is_not() -> bool:
        return not scene.monitor.is_ready

    await until(is_not)
    scene.monitor.use(good)
    await until(is_ready)
    assert "a defect" in caplog.text
    scene.monitor.drain()
    await loop


class Dead(Upstream):
    """A connection into which questions go, and out of which nothing comes."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1", max_message_bytes=1000)
        self.failure: ProxyError = UpstreamError(4, "Deadline Exceeded")
        self.renewed = 0

    async def call(
        self, method: str, data: bytes, *, timeout_s: float | None, metadata: Metadata | None = None
    ) -> Answer:
        raise self.failure

    def renew(self) -> None:
        self.renewed += 1


@pytest.mark.parametrize(
    ("failures", "renewed"),
    [
        (["late"] * 3, 1),
        (["late"] * 2, 0),
        (["late"] * 6, 2),
        (["late", "late", "refused", "late", "late"], 0),
        (["gone"] * 9, 0),
    ],
)
async def test_a_connection_that_nobody_answers_on_is_renewed(
    failures: list[str], renewed: int
) -> None:
    upstream = Dead()
    told = {
        "late": UpstreamError(4, "Deadline Exceeded"),
        "refused": UpstreamError(8, "busy"),
        "gone": UpstreamUnavailable("the model server cannot be reached"),
    }
    monitor = Monitor(upstream, Defences(Config(), Metrics()), lambda ready: None)
    for failure in failures:
        upstream.failure = told[failure]
        await monitor.tick()
    assert upstream.renewed == renewed
    await upstream.close()


async def test_a_process_that_cannot_go_on_is_not_alive(recorder: tuple[Recorder, str]) -> None:
    scene = Scene(*recorder, {})
    await scene.monitor.tick()
    assert scene.monitor.is_alive()
    scene.monitor.live(False)
    assert not scene.monitor.is_alive()
    assert (await scene.states())["liveness"] == NOT_SERVING
    scene.monitor.live(True)
    assert (await scene.states())["liveness"] == SERVING
    await scene.upstream.close()
