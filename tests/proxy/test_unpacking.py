"""Bounded unpacking, and the servers that need it."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proxy.errors import InvalidRequest, Overloaded
from proxy.pb import open_inference_pb2 as pb
from proxy.tasks import Tasks
from proxy.unpacking import Unpacker, is_packed
from tests.proxy.running import LIMIT_S, Recorder, ask, running

LIMIT = 8 << 20


async def unpack(data: bytes, unpacker: Unpacker | None = None) -> bytes:
    async with (unpacker or Unpacker(LIMIT)).unpacked(data) as plain:
        return plain


@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 18) + 1, 1 << 20, 5_000_000, LIMIT])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "zlib"])
async def test_what_was_packed_comes_out(size: int, pack) -> None:
    data = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    packed = pack(data[:size])
    assert is_packed(packed)
    assert await unpack(packed) == data[:size]


@pytest.mark.parametrize("data", [b"", b"\x1f", b"x", b"xx", b"\x0a\x01m", b"\x1f\x00", b"x\x00"])
def test_what_is_not_packed_is_left_alone(data: bytes) -> None:
    assert not is_packed(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (gzip.compress(b"whole")[:-4], "cut short"),
        (gzip.compress(b"whole")[:12], "cut short"),
        (gzip.compress(b"one") + gzip.compress(b"two"), "behind"),
        (zlib.compress(b"one") + b"\0", "behind"),
        (b"\x1f\x8b" + b"\xff" * 40, "broken"),
        (zlib.compress(bytes(3_000_000))[:-5] + b"12345", "cut short"),
        (b"x\x9c", "cut short"),
    ],
)
async def test_what_is_broken_is_said(data: bytes, text: str) -> None:
    unpacker = Unpacker(LIMIT)
    with pytest.raises(InvalidRequest, match=text):
        await unpack(data, unpacker)
    assert unpacker.in_use == 0


@pytest.mark.parametrize("size", [LIMIT + 1, 10 * LIMIT])
async def test_a_bomb_is_refused_and_its_memory_free_again(size: int) -> None:
    unpacker = Unpacker(LIMIT)
    with pytest.raises(Overloaded, match=f"larger than max \\({LIMIT} bytes"):
        await unpack(gzip.compress(bytes(size)), unpacker)
    assert unpacker.in_use == 0
    assert await unpack(gzip.compress(bytes(LIMIT)), unpacker) == bytes(LIMIT)


async def test_all_together_are_bounded_like_one() -> None:
    unpacker = Unpacker(LIMIT)
    async with unpacker.unpacked(gzip.compress(bytes(LIMIT - 100))):
        assert unpacker.in_use == LIMIT - 100
        assert await unpack(gzip.compress(bytes(100)), unpacker) == bytes(100)
        with pytest.raises(Overloaded, match="take too much memory"):
            await unpack(gzip.compress(bytes(101)), unpacker)
    assert unpacker.in_use == 0


async def test_the_queue_is_bounded_and_whoever_leaves_it_costs_nothing() -> None:
    unpacker, tasks = Unpacker(LIMIT), Tasks()
    packed = gzip.compress(bytes(2 << 20))
    asked = [tasks.start(unpack(packed, unpacker), quiet=True) for _ in range(100)]
    done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), LIMIT_S)
    refused = [each for each in done if isinstance(each, Overloaded)]
    assert len(refused) >= 100 - 64
    assert len(refused) + done.count(bytes(2 << 20)) == 100
    left = [tasks.start(unpack(packed, unpacker), quiet=True) for _ in range(3)]
    await asyncio.sleep(0)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert unpacker.in_use == 0
    unpacker.close()


async def test_small_services_take_compressed_messages_too(recorder: tuple[Recorder, str]) -> None:
    """Some clients compress whatever is sent; ours only what gets smaller by it."""
    request = health_pb2.HealthCheckRequest(service="a" * 500)
    async with running(recorder[1]) as sidecar:
        check = health_pb2_grpc.HealthStub(sidecar.channel).Check
        for compression in (None, grpc.Compression.Gzip, grpc.Compression.Deflate):
            call = check(request, timeout=LIMIT_S, compression=compression)
            assert await call.code() is grpc.StatusCode.NOT_FOUND
        path = "/grpc.health.v1.Health/Check"
        bomb = sidecar.channel.unary_unary(path)(gzip.compress(bytes(1 << 20)), timeout=LIMIT_S)
        assert await bomb.code() is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_refusing_says_what_is_taken(
    compression: grpc.Compression, recorder: tuple[Recorder, str]
) -> None:
    request = pb.ModelMetadataRequest(name="m" * 500)
    async with running(recorder[1], request_compression="refuse") as sidecar:
        reply = await ask(sidecar.channel, "ModelMetadata", request, compression=compression)
        assert reply.code is grpc.StatusCode.UNIMPLEMENTED
        assert (await ask(sidecar.channel, "ModelMetadata", request)).code is grpc.StatusCode.OK
    assert len(recorder[0].of("ModelMetadata")) == 1
