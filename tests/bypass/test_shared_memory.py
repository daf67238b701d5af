"""Shared memory whose owner changes it, and its names, between the inspection and its use."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray

from proxy.pb import open_inference_pb2 as pb
from tests.bypass.subject import ATTACK, has_seen
from tests.images import CLEAN, request
from tests.proxy.running import Running, ask, open_stream, running
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

SIZE = ATTACK.nbytes
WHOLE = 4 * SIZE
NAME = f"bypass/test/{os.getpid()}"
KEYS = [f"/breakwater_bypass_{os.getpid()}_{i}" for i in range(2)]
BUSY, OK = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK


@pytest.fixture
def memory() -> Iterator[list[object]]:
    """Two objects: the first holds an image that passes, the second the attack."""
    handles = [shm.create_shared_memory_region(key, key, WHOLE) for key in KEYS]
    for handle, image in zip(handles, (CLEAN[:1], ATTACK), strict=True):
        shm.set_shared_memory_region(handle, [image])
    yield handles
    for handle in handles:
        shm.destroy_shared_memory_region(handle)


async def register(sidecar: Running, key: str, name: str = NAME) -> grpc.StatusCode:
    message = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=WHOLE)
    return (await ask(sidecar.channel, "SystemSharedMemoryRegister", message)).code


async def unregister(sidecar: Running, name: str = NAME) -> None:
    message = pb.SystemSharedMemoryUnregisterRequest(name=name)
    await ask(sidecar.channel, "SystemSharedMemoryUnregister", message)


@pytest.fixture
async def region(memory: list[object], guarded: Running) -> AsyncIterator[object]:
    """The first object, registered through the sidecar under a name with slashes."""
    assert await register(guarded, KEYS[0]) is OK
    yield memory[0]
    await unregister(guarded)


def by_reference(offset: int = 0, size: int = SIZE, name: str = NAME) -> pb.ModelInferRequest:
    message = request("digits_like", CLEAN[:1])
    message.ClearField("raw_input_contents")
    parameters = message.inputs[0].parameters
    parameters["shared_memory_region"].string_param = name
    parameters["shared_memory_byte_size"].int64_param = size
    parameters["shared_memory_offset"].int64_param = offset
    return message


@contextmanager
def flickering(handle: object, *images: NDArray[np.float32]) -> Iterator[None]:
    """A thread that writes the images into the memory in turns, without a pause."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for image in images:
                shm.set_shared_memory_region(handle, [image])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


async def test_a_writer_that_races_the_inspection(region: object, guarded: Running) -> None:
    """What passes is what was looked at: never the attack, although it lies there half the time."""
    codes = set()
    with flickering(region, CLEAN[:1], ATTACK):
        for _ in range(60):
            reply = await ask(guarded.channel, "ModelInfer", by_reference())
            codes.add(reply.code)
            assert not has_seen(reply.data)
    assert codes <= {OK, BUSY}
    shm.set_shared_memory_region(region, [ATTACK])
    assert (await ask(guarded.channel, "ModelInfer", by_reference())).code is BUSY


async def test_a_writer_that_races_a_stream(region: object, guarded: Running) -> None:
    stream = open_stream(guarded.channel)
    with flickering(region, CLEAN[:1], ATTACK):
        for _ in range(40):
            await stream.write(by_reference().SerializeToString())
        await stream.done_writing()
        found = [pb.ModelStreamInferResponse.FromString(data) async for data in stream]
    assert len(found) == 40
    assert not any(has_seen(each.infer_response.SerializeToString()) for each in found)


async def test_a_name_that_changes_its_meaning(
    region: object, memory: list[object], guarded: Running
) -> None:
    """Registered anew for the attack and back, while requests refer to it."""
    over = asyncio.Event()

    async def swap() -> None:
        while not over.is_set():
            for key in reversed(KEYS):
                await unregister(guarded)
                await register(guarded, key)

    async with asyncio.TaskGroup() as group:
        group.create_task(swap())
        for _ in range(30):
            reply = await ask(guarded.channel, "ModelInfer", by_reference())
            assert not has_seen(reply.data)
        over.set()


async def test_an_answer_written_where_the_next_input_is_read(
    region: object, guarded: Running
) -> None:
    """Outputs in the client's memory: what they overwrite is inspected as it is then."""
    message = by_reference()
    output = message.outputs.add(name="logits")
    output.parameters["shared_memory_region"].string_param = NAME
    output.parameters["shared_memory_byte_size"].int64_param = 40
    for _ in range(3):
        shm.set_shared_memory_region(region, [CLEAN[:1]])
        assert (await ask(guarded.channel, "ModelInfer", message)).code is OK
    shm.set_shared_memory_region(region, [ATTACK])
    assert (await ask(guarded.channel, "ModelInfer", message)).code is BUSY
    left = shm.get_contents_as_numpy(region, np.float32, ATTACK.shape, 0)
    np.testing.assert_array_equal(left, ATTACK)  # no answer was written for what was blocked


@pytest.mark.parametrize(
    ("offset", "size"),
    [(WHOLE - SIZE + 1, SIZE), (2**62, SIZE), (2**63 - 1, SIZE), (0, SIZE - 4), (0, 0), (4, -SIZE)],
)
async def test_ranges_that_are_none(
    offset: int, size: int, region: object, guarded: Running
) -> None:
    reply = await ask(guarded.channel, "ModelInfer", by_reference(offset, size))
    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_shared_and_raw_and_typed_at_once(region: object, guarded: Running) -> None:
    """Two sources for one input: whichever was inspected, the other would be read."""
    both = [by_reference(), by_reference(), by_reference()]
    both[0].raw_input_contents.append(ATTACK.tobytes())
    both[1].inputs[0].contents.fp32_contents.extend(ATTACK.ravel().tolist())
    both[2].inputs.add().CopyFrom(request("digits_like", ATTACK).inputs[0])
    both[2].raw_input_contents.append(ATTACK.tobytes())
    for message in both:
        reply = await ask(guarded.channel, "ModelInfer", message)
        assert reply.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_object_cut_short_and_one_removed(region: object, guarded: Running) -> None:
    path = f"/dev/shm{KEYS[0]}"
    os.truncate(path, SIZE - 1)
    reply = await ask(guarded.channel, "ModelInfer", by_reference())
    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
    os.truncate(path, WHOLE)
    shm.set_shared_memory_region(region, [ATTACK])
    assert (await ask(guarded.channel, "ModelInfer", by_reference())).code is BUSY


async def test_through_two_sidecars(
    region: object, guarded: Running, triton: EmbeddedTriton
) -> None:
    """Registered through one, used through another that allows none: also not for answers."""
    async with running(triton.grpc_address) as other:
        message = request("digits_like", CLEAN[:1])
        output = message.outputs.add(name="logits")
        output.parameters["shared_memory_region"].string_param = NAME
        output.parameters["shared_memory_byte_size"].int64_param = 40
        for each in (by_reference(), message):
            reply = await ask(other.channel, "ModelInfer", each)
            assert reply.code is grpc.StatusCode.PERMISSION_DENIED
