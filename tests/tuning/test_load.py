"""Open-loop load against real gRPC servers."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from tests.proxy.running import Call, recording
from tuning import load
from tuning.load import Client


async def test_every_request_is_sent_in_turn_over_all_connections() -> None:
    async with recording() as (server, address), Client(address, [b"a", b"b", b"c"]) as client:
        done = await client.open_loop(2000, 60)
    assert sorted(call.data for call in server.calls) == [b"a"] * 20 + [b"b"] * 20 + [b"c"] * 20
    assert (len(done.latency_ms), done.errors, done.unsent) == (60, 0, 0)
    assert done.offered_per_s == 2000
    assert done.throughput_per_s == pytest.approx(60 / done.duration_s)


async def test_latency_counts_from_when_a_request_was_due_not_from_when_it_was_sent() -> None:
    """The client's own thread stalls: everything due meanwhile has waited that long."""

    async def stalls(call: Call, _: grpc.aio.ServicerContext) -> bytes:
        if call.data == b"first":
            time.sleep(0.2)  # noqa: ASYNC251 (the client shares this thread)
        return b""

    async with recording() as (server, address):
        server.answers["ModelInfer"] = stalls
        async with Client(address, [b"first", *[b"later"] * 99]) as client:
            done = await client.open_loop(1000, 100)  # all due within the stall
    assert done.percentile_ms(50) > 80
    assert done.lag_p99_ms > 50


async def test_errors_are_counted_and_have_no_latency() -> None:
    async def fails(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        if call.data == b"bad":
            await context.abort(grpc.StatusCode.INTERNAL, "as told")
        return b""

    async with recording() as (server, address):
        server.answers["ModelInfer"] = fails
        async with Client(address, [b"good", b"bad"]) as client:
            done = await client.open_loop(1000, 40)
            alone = await client.one_at_a_time(10, pause_s=0)
    assert (len(done.latency_ms), done.errors) == (20, 20)
    assert (len(alone.latency_ms), alone.errors) == (5, 5)


async def test_ends_when_the_server_falls_too_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MOST_OUTSTANDING", 10)
    release = asyncio.Event()

    async def holds(call: Call, _: grpc.aio.ServicerContext) -> bytes:
        if len(server.calls) == 10:
            release.set()
        await release.wait()
        return b""

    async with recording() as (server, address):
        server.answers["ModelInfer"] = holds
        async with Client(address, [b"x"]) as client:
            done = await client.open_loop(100_000, 500)
    assert done.unsent > 0
    assert len(done.latency_ms) + done.unsent == 500


async def test_nothing_answered_is_infinitely_slow() -> None:
    async with Client("127.0.0.1:1", [b"x"]) as client:
        done = await client.one_at_a_time(1, pause_s=0)
    assert done.errors == 1
    assert done.percentile_ms(99) == float("inf")
