"""A process goes and no client loses a request; in what order, and how it is hurried."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from tests.builders import infer_request
from tests.proxy.running import (
    UNBOUNDED,
    Call,
    Recorder,
    Running,
    ask,
    check_health,
    open_stream,
    running,
    until,
)
from tests.proxy.test_cli import served

INFER = infer_request({"image": np.zeros((1, 4), np.float32)}, model="m").SerializeToString()
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
OWN = [("grpc.use_local_subchannel_pool", 1), *UNBOUNDED]
PATIENT = {"drain_delay_seconds": 600, "max_connection_age_s": 600, "drain_seconds": 600}
BRISK = {"drain_delay_seconds": 0.2, "max_connection_age_s": 0.5, "drain_seconds": 10}


async def echo(call: Call, context: grpc.aio.ServicerContext) -> bytes:
    return call.data


class Balancer:
    """Connects clients to the one server that is in rotation; old connections stay where they are.

    As a Service does: it knows connections, not calls.
    """

    def __init__(self) -> None:
        self.target = ""
        self.address = ""

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.target.rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def pump(a: asyncio.StreamReader, b: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await a.read(65536):
                    b.write(data)
                    await b.drain()
            b.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


@contextlib.asynccontextmanager
async def balanced() -> AsyncIterator[Balancer]:
    balancer = Balancer()
    server = await asyncio.start_server(balancer.connect, "127.0.0.1", 0)
    balancer.address = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield balancer
    finally:
        server.close()


class Load:
    """Closed loops of plain clients that keep their connections and do not retry."""

    def __init__(self, address: str, connections: int = 6, loops: int = 6) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._going = True
        self._more = asyncio.Condition()
        self._channels = [
            grpc.aio.insecure_channel(address, options=[*OWN, ("x", i)]) for i in range(connections)
        ]
        self._tasks = [
            asyncio.ensure_future(self._run(channel, index * loops + loop))
            for index, channel in enumerate(self._channels)
            for loop in range(loops)
        ]

    async def _run(self, channel: grpc.aio.Channel, seed: int) -> None:
        x = np.full((1, 4), seed, np.float32)
        data = infer_request({"image": x}, model="m").SerializeToString()
        while self._going:
            reply = await ask(channel, "ModelInfer", data)
            if reply.code is not grpc.StatusCode.OK or reply.data != data:
                self.failures.append(f"{reply.code} {reply.details}")
            async with self._more:
                self.answered += 1
                self._more.notify_all()

    async def more(self, count: int = 200) -> None:
        """Wait for so many more answers."""
        wanted = self.answered + count
        async with asyncio.timeout(30), self._more:
            await self._more.wait_for(lambda: self.answered >= wanted)

    async def stop(self) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)
        for channel in self._channels:
            await channel.close()


async def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionError:  # reset: it was in the queue of a listener that closed
        return True
    writer.close()
    return False


async def test_many_drains_under_load_lose_nothing(recorder: tuple[Recorder, str]) -> None:
    recorder[0].answers["ModelInfer"] = echo
    async with balanced() as balancer, contextlib.AsyncExitStack() as stack:
        now = await stack.enter_async_context(running(recorder[1], **BRISK))
        balancer.target = now.address
        load = Load(balancer.address)
        for _ in range(4):
            await load.more()
            after = await stack.enter_async_context(running(recorder[1], **BRISK))
            await now.server.drain()
            balancer.target = after.address
            await until(lambda gone=now.address: _refuses(gone), limit_s=20)
            now = after
        await load.more()
        await load.stop()
    assert load.failures == []


async def test_two_workers_go_under_load_and_lose_nothing(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    recorder[0].answers["ModelInfer"] = echo
    path = tmp_path / "c.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in BRISK.items()))
    options = ("--workers", "2", "--config", str(path))
    async with (
        balanced() as balancer,
        served(recorder[1], *options) as (old, _),
        running(recorder[1]) as after,
    ):
        balancer.target = old.address
        load = Load(balancer.address)
        await load.more()
        old.signal(signal.SIGTERM)
        balancer.target = after.address
        assert await old.ended() == 0
        await load.more()
        await load.stop()
    assert load.failures == []


async def test_health_says_no_at_once_while_requests_are_still_taken(
    recorder: tuple[Recorder, str],
) -> None:
    recorder[0].answers["ModelInfer"] = echo
    async with running(recorder[1], **PATIENT) as sidecar:
        assert await check_health(sidecar.channel, "readiness") == SERVING
        await sidecar.server.drain()
        for service in ("", "readiness"):
            assert await check_health(sidecar.channel, service) == NOT_SERVING
        assert await check_health(sidecar.channel, "liveness") == SERVING
        assert (await ask(sidecar.channel, "ModelInfer", INFER)).data == INFER
        status = await sidecar.server.status()
        assert (status.ready, status.draining, status.drained) == (False, True, False)
        await sidecar.server.drain("now")
        await until(lambda: _refuses(sidecar.address))


@pytest.mark.parametrize("again", ["exit", "now"])
async def test_a_hurried_drain_finishes_what_is_in_flight(
    again: str, recorder: tuple[Recorder, str]
) -> None:
    release = asyncio.Event()

    async def held(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await release.wait()
        return call.data

    recorder[0].answers["ModelInfer"] = held
    async with running(recorder[1], **PATIENT) as sidecar:
        asking = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", INFER))
        call = await recorder[0].expect("ModelInfer")
        await sidecar.server.drain("now")
        if again == "now":  # nor for that
            await sidecar.server.drain("now")
            assert (await asking).code is not grpc.StatusCode.OK
            await asyncio.wait_for(call.cancelled.wait(), 5)
        else:
            await until(lambda: _refused(sidecar))
            await sidecar.server.drain("exit")
            release.set()
            assert (await asking).data == INFER
        await until(lambda: _refuses(sidecar.address))


async def _refused(sidecar: Running) -> bool:
    reply = await ask(sidecar.channel, "ModelInfer", INFER, timeout=0.2)
    return reply.code is grpc.StatusCode.UNAVAILABLE


async def test_one_that_stays_serves_until_it_is_told_to_exit(
    recorder: tuple[Recorder, str],
) -> None:
    recorder[0].answers["ModelInfer"] = echo
    async with running(recorder[1]) as sidecar:
        await sidecar.server.drain("stay")
        await sidecar.server.drain("stay")  # again is harmless

        async def is_drained() -> bool:
            return (await sidecar.server.status()).drained

        await until(is_drained)
        assert (await ask(sidecar.channel, "ModelInfer", INFER)).data == INFER
        assert not (await sidecar.server.status()).ready
        await sidecar.server.drain("exit")
        await until(lambda: _refuses(sidecar.address))


async def test_a_stream_at_rest_is_ended_and_one_at_work_gets_its_answer(
    recorder: tuple[Recorder, str],
) -> None:
    release = asyncio.Event()

    async def stream(call: Call, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            await release.wait()
            await context.write(data)

    recorder[0].stream = stream
    async with running(recorder[1], drain_seconds=600) as sidecar:
        silent, busy = open_stream(sidecar.channel), open_stream(sidecar.channel)
        await busy.write(INFER)
        await recorder[0].expect("ModelStreamInfer", 2)
        await sidecar.busy(2)
        await sidecar.server.drain()
        assert await silent.code() is grpc.StatusCode.UNAVAILABLE
        assert await silent.details() == "the server is shutting down"
        release.set()
        assert await busy.read() == INFER
        assert await busy.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: _refuses(sidecar.address))


async def test_a_stream_opened_while_it_stays_gets_its_first_answer(
    recorder: tuple[Recorder, str],
) -> None:
    async def stream(call: Call, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            await context.write(data)

    recorder[0].stream = stream
    async with running(recorder[1]) as sidecar:
        await sidecar.server.drain("stay")

        async def is_drained() -> bool:
            return (await sidecar.server.status()).drained

        await until(is_drained)
        late = open_stream(sidecar.channel)
        await recorder[0].expect("ModelStreamInfer", 1)
        # Longer than a stream may be silent that had its say.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await late.initial_metadata()
        await late.write(INFER)
        assert await late.read() == INFER
        assert await late.code() is grpc.StatusCode.UNAVAILABLE
        await sidecar.server.drain("exit")


async def test_a_stream_that_asks_for_descriptions_does_not_hold_the_exit(
    recorder: tuple[Recorder, str],
) -> None:
    async with running(recorder[1], drain_seconds=600, max_connection_age_s=0) as sidecar:
        idle = sidecar.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )()
        await idle.wait_for_connection()
        async with asyncio.timeout(20):
            await sidecar.server.drain()
            await idle.code()


async def test_connections_without_an_end_are_waited_for_no_longer_than_drain_seconds(
    recorder: tuple[Recorder, str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"max_connection_age_s": 600, "drain_seconds": 0.2}
    async with running(recorder[1], **settings) as sidecar:
        assert await check_health(sidecar.channel, "") == SERVING
        await sidecar.server.drain()
        await until(lambda: _refuses(sidecar.address))
    assert "connections may not know yet that this server goes" in caplog.text
