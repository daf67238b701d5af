"""Bombs against a worker in a process of its own, whose memory is measured."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from loadtests.http2 import (
    ACKNOWLEDGED,
    CALL,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    connected,
    frame,
    packed,
)
from proxy import rpc
from tests.builders import infer_request
from tests.images import CLEAN
from tests.proxy.running import LIMIT_S, Call, Recorder, ask, open_stream

MIB = 1 << 20
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LIMIT_MIB = 16
BOUND_MIB = 100
"""What bombs may add: the limit on what is in progress, twice while it is put together, the
messages as they come, and what the allocator keeps."""
LAST = b"the last"
"""Of eight bytes, as pings have; the server gives them back once it has read all before."""
CONNECTION = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))


class Worker(NamedTuple):
    """A running sidecar."""

    pid: int
    address: str
    channel: grpc.aio.Channel

    def peak_mib(self) -> float:
        """The most memory it has had so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    async def is_well(self) -> bool:
        """Whether it takes honest requests, compressed ones too."""
        message = infer_request({"image": CLEAN}, model="m")
        replies = [
            await ask(self.channel, "ModelInfer", message, compression=compression)
            for compression in (None, grpc.Compression.Gzip)
        ]
        return all(reply.code is grpc.StatusCode.OK for reply in replies)


@pytest.fixture
async def worker(recorder: tuple[Recorder, str], tmp_path: Path) -> AsyncIterator[Worker]:
    """`breakwater serve` as a process of its own, before a server that keeps streams open."""

    async def stay(call: Call, context: grpc.aio.ServicerContext) -> None:
        await asyncio.Event().wait()

    recorder[0].stream = stay
    async with started(recorder[1], tmp_path) as running:
        yield running


@asynccontextmanager
async def started(upstream: str, folder: Path) -> AsyncIterator[Worker]:
    file = folder / "config.yaml"
    addresses = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0"
    file.write_text(f"upstream: {upstream}\n{addresses}\nmax_message_bytes: {LIMIT_MIB * MIB}\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.cli", "serve", "--config", str(file)),
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while not (
                found := re.search(rb"listening on (\S+),", await process.stderr.readline())
            ):
                assert not process.stderr.at_eof()
        async with grpc.aio.insecure_channel(found[1].decode(), options=CONNECTION) as channel:
            worker = Worker(process.pid, found[1].decode(), channel)
            assert await worker.is_well()
            yield worker
    finally:
        process.kill()
        await process.wait()


async def test_bombs_that_grpc_compressed_cost_no_more_than_the_limit(worker: Worker) -> None:
    """As an ordinary client sends them: with the flag that the message is compressed."""
    before = worker.peak_mib()
    bomb = bytes(128 * MIB)
    for name in ("ModelInfer", "ModelMetadata"):
        reply = await ask(worker.channel, name, bomb, compression=grpc.Compression.Gzip)
        assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"larger than max ({LIMIT_MIB * MIB} bytes unpacked)" in reply.details
    assert worker.peak_mib() - before < BOUND_MIB
    assert await worker.is_well()


async def test_many_bombs_at_a_time_cost_no_more_than_one(worker: Worker) -> None:
    """Each within the limit, so that only their sum is the attack; none is a whole request."""
    before = worker.peak_mib()
    packed = gzip.compress(bytes((LIMIT_MIB - 1) * MIB))
    call = worker.channel.unary_unary(rpc.INFER.path)
    calls = [call(packed, timeout=6 * LIMIT_S) for _ in range(200)]
    codes = await asyncio.gather(*(each.code() for each in calls))
    assert {*codes} <= {grpc.StatusCode.RESOURCE_EXHAUSTED, INVALID}
    assert worker.peak_mib() - before < BOUND_MIB
    assert await worker.is_well()


async def test_refused_messages_do_not_stay_in_memory(worker: Worker) -> None:
    """An aborted call is a circle of references, and its message was in it."""
    before = worker.peak_mib()
    junk = bytes((LIMIT_MIB - 1) * MIB)
    for _ in range(60):
        assert (await ask(worker.channel, "ModelInfer", junk)).code is INVALID
    # gRPC holds some in pieces and whole at a time; all would be 900.
    assert worker.peak_mib() - before < 2 * BOUND_MIB


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
async def test_bombs_in_streams_end_the_stream(worker: Worker, pack) -> None:
    before = worker.peak_mib()
    packed = pack(bytes(400 * MIB))
    for _ in range(5):
        stream = open_stream(worker.channel)
        await stream.write(packed)
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert worker.peak_mib() - before < BOUND_MIB
    assert await worker.is_well()


@pytest.mark.parametrize("acknowledges", [True, False])
async def test_calls_without_a_message_do_not_pile_up(acknowledges: bool, worker: Worker) -> None:
    """gRPC keeps each for as long as its connection lasts; 20,000 took 350 MB."""
    before = worker.peak_mib()
    async with connected(worker.address) as (reader, writer):
        writer.write(PREFACE + frame(SETTINGS))
        await reader.readexactly(9)  # the server's settings
        writer.write(frame(SETTINGS, ACKNOWLEDGED) if acknowledges else b"")
        call, ended = packed(CALL), END_HEADERS | END_STREAM
        with contextlib.suppress(OSError):  # the server may close
            for start in range(1, 40_000, 400):
                streams = range(start, start + 400, 2)
                writer.write(b"".join(frame(HEADERS, ended, each, call) for each in streams))
                await writer.drain()
            writer.write(frame(PING, body=LAST))
            found = b""
            async with asyncio.timeout(LIMIT_S):
                while LAST not in found[-100_000:] and (data := await reader.read(1 << 16)):
                    found += data
        assert await worker.is_well()
    assert worker.peak_mib() - before < BOUND_MIB
