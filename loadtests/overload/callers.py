"""Attacks by what any gRPC client can do: too much, too many, too large, too long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator

import grpc

from loadtests.chaos.traffic import Images
from loadtests.overload.scene import BULK, MESSAGE_MIB, MIB
from loadtests.overload.tally import REFUSED, Tally, Target
from loadtests.soak.subjects import OUTPUTS, SIDE
from loadtests.soak.traffic import HEADER, PURIFYING
from proxy import rpc, wire

DEADLINE_S = 10.0
CROWD = 1000
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_METADATA = ((HEADER, "attacker"),)


def channel(address: str) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


def image(images: Images, request_id: str = "") -> bytes:
    """A request to a model that is defended."""
    x = images.make(tampered=False)
    tensor = ("image", "FP32", (1, 3, SIDE, SIDE), x.tobytes())
    return wire.build_infer_request(PURIFYING, "", [tensor], OUTPUTS, request_id=request_id)


def bulk(size: int) -> bytes:
    """A request whose answer is as large as itself."""
    return wire.build_infer_request(BULK, "", [("bytes", "UINT8", (size,), bytes(size))])


def wish(size: int) -> bytes:
    """A small request with an answer of so many bytes."""
    return wire.build_infer_request(BULK, "", [("size", "INT32", (1,), size.to_bytes(4, "little"))])


async def crowd(target: Target, tally: Tally) -> None:
    """A thousand connections that each ask now and then, and stay."""
    message = bulk(1000)

    async def one(number: int) -> None:
        await asyncio.sleep(number / 250)
        call = channel(target.address).unary_unary(rpc.INFER.path)
        while True:
            await tally.unary(call(message, timeout=DEADLINE_S, metadata=_METADATA))
            await asyncio.sleep(5.0)

    async with asyncio.TaskGroup() as group:
        for number in range(CROWD):
            group.create_task(one(number))


async def cancel(target: Target, tally: Tally) -> None:
    """Requests that their client gives up within a few milliseconds."""
    images, pick = Images(), random.Random(1)

    async def one(call: grpc.aio.UnaryUnaryMultiCallable) -> None:
        while True:
            asked = call(image(images), timeout=DEADLINE_S, metadata=_METADATA)
            waiting = asyncio.ensure_future(tally.unary(asked))
            await asyncio.sleep(pick.uniform(0, 0.02))
            tally.counts["given up"] += asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            call = channel(target.address).unary_unary(rpc.INFER.path)
            for _ in range(4):
                group.create_task(one(call))


async def large(target: Target, tally: Tally) -> None:
    """Messages of 100 MB, six at a time, and some that are larger than is allowed."""
    fits, too_large = bulk(100_000_000), bulk((MESSAGE_MIB + 32) * MIB)

    async def one(message: bytes) -> None:
        call = channel(target.address).unary_unary(rpc.INFER.path)
        while True:
            data = await tally.unary(call(message, timeout=60, metadata=_METADATA))
            if data is not None and len(data) < 100_000_000:
                tally.counts["cut short"] += 1
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(one(fits if number else too_large))


async def streams(target: Target, tally: Tally) -> None:
    """Streams that send without a pause, eight messages ahead, and more of them than there may."""
    images = Images()

    async def one(stub: grpc.aio.StreamStreamMultiCallable) -> None:
        while True:
            began_s = time.monotonic()
            ahead = asyncio.Semaphore(8)
            call = stub(_messages(images, ahead), metadata=_METADATA)
            numbers = itertools.count()
            try:
                async for data in call:
                    ahead.release()
                    tally.counts["messages"] += 1
                    answer = wire.StreamResponse.parse(data).response
                    if answer is None or answer.head.id != str(next(numbers)):
                        tally.counts["out of order"] += 1
            except grpc.aio.AioRpcError as error:
                tally.counts[error.code().name] += 1
                if error.code().name == REFUSED:
                    tally.refusals_ms.append(1000 * (time.monotonic() - began_s))
            await asyncio.sleep(0.5)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            stub = channel(target.address).stream_stream(rpc.STREAM_INFER.path)
            for _ in range(6):
                group.create_task(one(stub))


async def _messages(images: Images, ahead: asyncio.Semaphore) -> AsyncIterator[bytes]:
    for number in itertools.count():
        await ahead.acquire()
        yield image(images, str(number))


async def churn(target: Target, tally: Tally) -> None:
    """Connections for one request each."""
    message = bulk(1000)

    async def one() -> None:
        while True:
            async with channel(target.address) as connection:
                call = connection.unary_unary(rpc.INFER.path)
                await tally.unary(call(message, timeout=DEADLINE_S, metadata=_METADATA))

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(one())
