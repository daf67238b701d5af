"""A client that goes away, at every stage: what it started ends, and nobody else notices."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from proxy import rpc
from proxy.pb import open_inference_pb2 as pb
from tests.builders import infer_request
from tests.proxy.running import LIMIT_S, Call, Recorder, ask, open_stream, running

INFER = infer_request({"image": np.zeros((1, 4), np.float32)}, model="m").SerializeToString()
METADATA = pb.ModelMetadataRequest(name="m").SerializeToString()
REQUESTS = {"ModelInfer": INFER, "ModelMetadata": METADATA}


async def forever(call: Call, context: grpc.aio.ServicerContext) -> bytes:
    await asyncio.Event().wait()
    return b""


async def forever_reading(call: Call, context: grpc.aio.ServicerContext) -> None:
    while (data := await context.read()) is not grpc.aio.EOF:
        call.messages.append(data)
    await asyncio.Event().wait()


async def gone(call: Call) -> None:
    await asyncio.wait_for(call.cancelled.wait(), LIMIT_S)


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_call_to_the_server_ends_with_the_clients(
    name: str, recorder: tuple[Recorder, str], caplog: pytest.LogCaptureFixture
) -> None:
    recorder[0].answers[name] = forever
    async with running(recorder[1]) as sidecar:
        call = sidecar.channel.unary_unary(rpc.RPCS[name].path)(REQUESTS[name])
        upstream = await recorder[0].expect(name)
        call.cancel()
        await gone(upstream)
        await sidecar.idle()
        if name == "ModelInfer":
            assert await sidecar.metric("requests_total") == 1
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


@pytest.mark.parametrize("name", REQUESTS)
async def test_so_it_does_with_the_connection(name: str, recorder: tuple[Recorder, str]) -> None:
    recorder[0].answers[name] = forever
    async with running(recorder[1]) as sidecar:
        async with grpc.aio.insecure_channel(sidecar.address) as channel:
            call = channel.unary_unary(rpc.RPCS[name].path)(REQUESTS[name])
            upstream = await recorder[0].expect(name)
        assert call.cancelled()
        await gone(upstream)
        await sidecar.idle()


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_deadline_reaches_the_server_and_ends_the_call(
    name: str, recorder: tuple[Recorder, str]
) -> None:
    recorder[0].answers[name] = forever
    async with running(recorder[1]) as sidecar:
        reply = await ask(sidecar.channel, name, REQUESTS[name], timeout=0.3)
        assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
        upstream = recorder[0].of(name)[-1]
        assert upstream.time_remaining is not None
        assert 0 < upstream.time_remaining < 0.4  # gRPC rounds up on the wire
        await gone(upstream)
        await sidecar.idle()
        if name == "ModelInfer":
            late = await sidecar.metric("requests_total", outcome="deadline_exceeded")
            assert late + await sidecar.metric("requests_total", outcome="upstream_error") == 1


@pytest.mark.parametrize("name", REQUESTS)
async def test_without_a_deadline_the_configured_one_holds(
    name: str, recorder: tuple[Recorder, str]
) -> None:
    recorder[0].answers[name] = forever
    async with running(recorder[1], upstream_timeout_s=0.2) as sidecar:
        reply = await ask(sidecar.channel, name, REQUESTS[name], timeout=None)
        assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await gone(recorder[0].of(name)[-1])


async def test_others_are_not_harmed(recorder: tuple[Recorder, str]) -> None:
    release = asyncio.Event()

    async def wait(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await release.wait()
        return b"\x1a\x01a"

    recorder[0].answers["ModelInfer"] = wait
    async with running(recorder[1]) as sidecar:
        method = sidecar.channel.unary_unary(rpc.INFER.path)
        calls = [method(INFER) for _ in range(40)]
        await recorder[0].expect("ModelInfer", 40)
        await sidecar.busy(40)
        for call in calls[::2]:
            call.cancel()
        await sidecar.busy(20)
        release.set()
        assert [await call for call in calls[1::2]] == [b"\x1a\x01a"] * 20
        await sidecar.idle()


@pytest.mark.parametrize("messages", [0, 1, 3])
async def test_a_cancelled_stream_ends_alone(
    messages: int, recorder: tuple[Recorder, str], caplog: pytest.LogCaptureFixture
) -> None:
    recorder[0].stream = forever_reading
    async with running(recorder[1]) as sidecar:
        streams = {}
        for who in ("leaving", "staying"):
            streams[who] = open_stream(sidecar.channel, timeout=None, metadata=(("x-who", who),))
            for _ in range(messages):
                await streams[who].write(INFER)
        await recorder[0].expect("ModelStreamInfer", 2)
        upstream = {str(c.values("x-who")[0]): c for c in recorder[0].of("ModelStreamInfer")}
        streams["leaving"].cancel()
        await gone(upstream["leaving"])
        await sidecar.busy(1)
        await streams["staying"].write(INFER)
        assert not upstream["staying"].cancelled.is_set()
        streams["staying"].cancel()
        await gone(upstream["staying"])
        await sidecar.idle()
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_a_stream_cancelled_while_it_waits_for_room(recorder: tuple[Recorder, str]) -> None:
    """The server takes nothing more: the proxy is in the middle of a write."""

    async def stuck(call: Call, context: grpc.aio.ServicerContext) -> None:
        await asyncio.Event().wait()

    recorder[0].stream = stuck
    large = infer_request({"image": np.zeros(500_000, np.float32)}, model="m").SerializeToString()
    async with running(recorder[1]) as sidecar:
        call = open_stream(sidecar.channel, timeout=None)

        async def pour() -> None:
            while True:
                await call.write(large)

        writing = asyncio.ensure_future(pour())
        upstream = await recorder[0].expect("ModelStreamInfer")
        await asyncio.wait([writing], timeout=0.2)
        call.cancel()
        await gone(upstream)
        await sidecar.idle()
        await asyncio.gather(writing, return_exceptions=True)
