"""Answers nobody takes are bounded: the client that leaves most of them loses its connection."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

from loadtests.http2 import CALL, END_HEADERS, HEADERS, call, frame, opened, packed
from proxy import rpc, wire
from proxy.inflow.untaken import Untaken
from tests.builders import infer_request
from tests.images import CLEAN
from tests.proxy.running import LIMIT_S, Recorder, Running, ask, running, until

GOOD = infer_request({"image": CLEAN}, model="m")
LARGE = 1_000_000
SETTINGS: dict[str, Any] = {"max_message_bytes": 2 * LARGE, "inflow": {}}
"""Room for four such answers; of two the slow must go."""


def large(recorder: Recorder) -> None:
    answer = wire.build_infer_request("m", "", [("y", "UINT8", (LARGE,), b"y" * LARGE)])

    async def many(_: object, context: grpc.aio.ServicerContext) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await context.write(answer)

    async def one(_: object, context: grpc.aio.ServicerContext) -> bytes:
        return answer

    recorder.answers["ModelInfer"] = one
    recorder.stream = many


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def counted(server: Running) -> Untaken:
    return server.server._untaken


async def test_unary_answers_nobody_takes_end_their_connection_alone(
    recorder: tuple[Recorder, str], caplog: pytest.LogCaptureFixture
) -> None:
    large(recorder[0])
    async with running(recorder[1], **SETTINGS) as server:
        async with opened(server.address, window=0) as (reader, to):
            message = GOOD.SerializeToString()
            to.write(b"".join(call(stream, message) for stream in (1, 3, 5)))
            async with asyncio.timeout(LIMIT_S):
                await reader.read()  # to the end, which the server makes
            await until(lambda: _is(counted(server).bytes == 0))
        assert (await ask(server.channel, "ModelInfer", GOOD)).code is grpc.StatusCode.OK
        assert "inflow.max_untaken_bytes" in caplog.text
        assert await server.metric("gave_way_total", reason="untaken") == 1


async def test_streams_nobody_reads_end_their_connection(recorder: tuple[Recorder, str]) -> None:
    large(recorder[0])
    headers = [(name, rpc.STREAM_INFER.path if name == ":path" else value) for name, value in CALL]
    async with running(recorder[1], **SETTINGS) as server:
        async with opened(server.address, window=0) as (reader, to):
            for stream in (1, 3, 5):
                to.write(frame(HEADERS, END_HEADERS, stream, packed(headers)))
            async with asyncio.timeout(LIMIT_S):
                await reader.read()
        await server.idle()
        await until(lambda: _is(counted(server).bytes == 0))


async def test_who_takes_answers_is_left_alone(recorder: tuple[Recorder, str]) -> None:
    large(recorder[0])
    async with running(recorder[1], **SETTINGS) as server:
        for _ in range(20):
            assert (await ask(server.channel, "ModelInfer", GOOD)).code is grpc.StatusCode.OK
        await until(lambda: _is(counted(server).bytes == 0))
        assert await server.metric("gave_way_total", reason="untaken") == 0


async def _is(value: bool) -> bool:
    return value


def test_the_slow_client_with_most_bytes_goes_and_the_young_never() -> None:
    ended: list[str] = []
    clock = Clock()
    untaken = Untaken(1_000_000, lambda peer: not ended.append(peer), clock=clock)
    with untaken.sending("small", 100_000), untaken.sending("most", 300_000):
        clock.now_s = 0.9
        with untaken.sending("young", 500_000):
            untaken.look()
            assert ended == []
            clock.now_s = 1.0
            untaken.look()
            assert ended == ["most"]
            assert not untaken.is_full
            with untaken.sending("young", 100_000):
                assert untaken.is_full


def test_below_half_nobody_has_to_go() -> None:
    ended: list[str] = []
    clock = Clock()
    untaken = Untaken(1_000_000, lambda peer: not ended.append(peer), clock=clock)
    with untaken.sending("one", 400_000):
        clock.now_s = 100.0
        untaken.look()
        assert ended == []


def test_a_connection_that_cannot_be_ended_does_not_shield_the_next() -> None:
    tried: list[str] = []
    clock = Clock()

    def end(peer: str) -> bool:
        tried.append(peer)
        return peer != "unix:"

    untaken = Untaken(1_000_000, end, clock=clock)
    with untaken.sending("unix:", 600_000), untaken.sending("ipv4:1.2.3.4:5", 10):
        clock.now_s = 5.0
        untaken.look()
    assert tried == ["unix:", "ipv4:1.2.3.4:5"]
    assert untaken.bytes == 0
