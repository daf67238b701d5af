"""Slow clients hold little, give way, and keep nobody out."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from loadtests.http2 import call, ended, opened
from proxy.inflow.waiting import Waiting
from tests.builders import infer_request
from tests.images import CLEAN
from tests.proxy.running import LIMIT_S, Recorder, Running, ask, open_stream, running, until

GOOD = infer_request({"image": CLEAN}, model="m")
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def waiting(server: Running) -> Waiting:
    return server.server._waiting


async def counted(server: Running, count: int) -> None:
    async def is_so() -> bool:
        return len(waiting(server)) == count

    await until(is_so)


async def test_slow_writers_give_way_and_hold_no_permit(recorder: tuple[Recorder, str]) -> None:
    """Ten messages that never end, where there is room for four and one request at a time."""
    settings = {"max_in_flight": 1, "inflow": {"max_waiting": 4}}
    async with running(recorder[1], **settings) as server, opened(server.address) as (reader, to):
        for stream in range(1, 20, 2):
            to.write(call(stream, b"x" * 100, size=10_000_000))
        async with asyncio.timeout(LIMIT_S):
            given_way = ended(reader)
            found = [await anext(given_way) for _ in range(6)]
        assert found == [1, 3, 5, 7, 9, 11], "the oldest first"
        await counted(server, 4)
        assert await server.in_flight() == 0
        assert (await ask(server.channel, "ModelInfer", GOOD)).code is grpc.StatusCode.OK


async def test_a_client_that_goes_is_counted_no_more(recorder: tuple[Recorder, str]) -> None:
    async with running(recorder[1]) as server:
        async with opened(server.address) as (_, to):
            to.write(b"".join(call(stream, b"x", size=99) for stream in range(1, 100, 2)))
            await counted(server, 50)
        await counted(server, 0)


@pytest.mark.parametrize("name", ["ModelInfer", "ModelMetadata"])
async def test_a_call_without_a_message_is_told_so(
    name: str, recorder: tuple[Recorder, str]
) -> None:
    async def nothing():
        return
        yield

    async with running(recorder[1]) as server:
        path = f"/inference.GRPCInferenceService/{name}"
        asked = server.channel.stream_unary(path)(nothing(), timeout=LIMIT_S)
        assert await asked.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "no message" in await asked.details()


async def test_what_will_be_refused_is_refused_unread(recorder: tuple[Recorder, str]) -> None:
    """The status comes before the message has: a call in progress takes the only place."""
    release = asyncio.Event()

    async def hold(_: object, context: grpc.aio.ServicerContext) -> bytes:
        await release.wait()
        return b""

    recorder[0].answers["ModelInfer"] = hold
    async with (
        running(recorder[1], max_in_flight=1) as server,
        opened(server.address) as (reader, to),
    ):
        first = asyncio.ensure_future(ask(server.channel, "ModelInfer", GOOD))
        await server.busy()
        to.write(call(1, b"x", size=200_000_000))
        async with asyncio.timeout(LIMIT_S):
            assert await anext(ended(reader)) == 1
        release.set()
        assert (await first).code is grpc.StatusCode.OK


async def test_bytes_in_flight_are_bounded(recorder: tuple[Recorder, str]) -> None:
    """Room for two messages of a mebibyte; the third is refused at once, and alone it is taken."""
    release = asyncio.Event()

    async def hold(_: object, context: grpc.aio.ServicerContext) -> bytes:
        await release.wait()
        return b""

    recorder[0].answers["ModelInfer"] = hold
    large = infer_request({"image": CLEAN.repeat(86, axis=0)}, model="m")
    size = large.ByteSize()
    settings = {"max_message_bytes": size, "inflow": {"max_bytes_in_flight": 2 * size}}
    async with running(recorder[1], **settings) as server:
        taken = [asyncio.ensure_future(ask(server.channel, "ModelInfer", large)) for _ in range(2)]
        await server.busy(2)
        refused = await ask(server.channel, "ModelInfer", large)
        assert (refused.code, refused.details) == (EXHAUSTED, "too many bytes in flight")
        stream = open_stream(server.channel)
        await stream.write(large.SerializeToString())
        assert await stream.code() is EXHAUSTED
        release.set()
        assert {reply.code for reply in await asyncio.gather(*taken)} == {grpc.StatusCode.OK}
        await server.idle()
        assert (await ask(server.channel, "ModelInfer", large)).code is grpc.StatusCode.OK
        assert server.server._pipeline.bytes_in_flight == 0


async def test_silent_streams_leave_room_for_requests(recorder: tuple[Recorder, str]) -> None:
    async def silence(_: object, context: grpc.aio.ServicerContext) -> None:
        while await context.read() is not grpc.aio.EOF:
            pass

    recorder[0].stream = silence
    async with running(recorder[1], max_in_flight=8) as server:
        streams = [open_stream(server.channel) for _ in range(8)]
        for each in streams:
            await each.wait_for_connection()
        refused = [each async for each in _ended(streams, 4)]
        assert {await each.code() for each in refused} == {EXHAUSTED}
        assert (await ask(server.channel, "ModelInfer", GOOD)).code is grpc.StatusCode.OK
        for each in streams:
            each.cancel()
        await server.idle()


async def _ended(streams: list[grpc.aio.StreamStreamCall], count: int):
    async def is_so() -> bool:
        return sum(each.done() for each in streams) == count

    reading = [asyncio.ensure_future(each.code()) for each in streams]
    await until(is_so)
    for each, task in zip(streams, reading, strict=True):
        if each.done():
            yield each
        task.cancel()
