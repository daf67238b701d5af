"""Tensors in system shared memory, against the real Triton and a recording server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as sync_client
import tritonclient.utils.shared_memory as shm

from proxy.errors import InvalidTensor, UpstreamError, UpstreamUnavailable
from proxy.pb import open_inference_pb2 as pb
from proxy.shared_memory import SharedMemoryReader
from proxy.upstream import Upstream
from proxy.wire import InferRequest
from tests.builders import infer_request
from tests.proxy.running import Call, Recorder, Running, ask, recording, running
from tuning.triton import EmbeddedTriton

IMAGE = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
NAME = f"breakwater_test_{os.getpid()}"
KEY = f"/{NAME}"
FOLDER = Path("/dev/shm")


@pytest.fixture
def handle() -> Iterator[object]:
    """A system shared-memory object of 64 KiB whose first bytes are the image."""
    handle = shm.create_shared_memory_region(NAME, KEY, 65536)
    shm.set_shared_memory_region(handle, [IMAGE])
    yield handle
    shm.destroy_shared_memory_region(handle)


def by_reference(
    region: str = NAME, *, size: int = IMAGE.nbytes, offset: int | None = None
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="identity_fp32")
    tensor = request.inputs.add(name="image", datatype="FP32", shape=IMAGE.shape)
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    if offset is not None:
        tensor.parameters["shared_memory_offset"].int64_param = offset
    return request


def echoed(data: bytes) -> bytes:
    return pb.ModelInferResponse.FromString(data).raw_output_contents[0]


# -- through the whole proxy ---------------------------------------------------------------------


def _use_tritonclient(address: str, handle: object) -> np.ndarray:
    with sync_client.InferenceServerClient(address) as client:
        client.register_system_shared_memory(NAME, KEY, 65536)
        try:
            tensor = sync_client.InferInput("image", IMAGE.shape, "FP32")
            tensor.set_shared_memory(NAME, IMAGE.nbytes)
            output = sync_client.InferRequestedOutput("echo")
            output.set_shared_memory(NAME, IMAGE.nbytes, offset=32768)
            client.infer("identity_fp32", [tensor], outputs=[output])
            return shm.get_contents_as_numpy(handle, np.float32, IMAGE.shape, 32768).copy()
        finally:
            client.unregister_system_shared_memory(NAME)


@pytest.mark.triton
async def test_tritonclient_with_memory_both_ways(open_front: Running, handle: object) -> None:
    got = await asyncio.to_thread(_use_tritonclient, open_front.address, handle)
    np.testing.assert_array_equal(got, IMAGE)


MODES = {"deny": {}, "inspect": {}, "passthrough": {}}


@pytest.fixture
async def registered(
    handle: object, direct: grpc.aio.Channel, open_front: Running
) -> AsyncIterator[object]:
    """The object, registered with Triton under its name."""
    request = pb.SystemSharedMemoryRegisterRequest(name=NAME, key=KEY, byte_size=65536)
    assert (await ask(direct, "SystemSharedMemoryRegister", request)).code is grpc.StatusCode.OK
    yield handle
    await ask(direct, "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())


@pytest.mark.triton
@pytest.mark.parametrize("mode", ["deny", "inspect", "passthrough"])
async def test_each_mode(mode: str, registered: object, triton: EmbeddedTriton) -> None:
    async with running(triton.grpc_address, shared_memory=mode) as sidecar:
        reply = await ask(sidecar.channel, "ModelInfer", by_reference())
        counted = await sidecar.metric("shared_memory_passthrough_total")
    assert counted == (mode == "passthrough")
    if mode == "deny":
        assert reply.code is grpc.StatusCode.PERMISSION_DENIED
    else:
        assert echoed(reply.data) == IMAGE.tobytes()


@pytest.mark.triton
async def test_what_the_client_writes_later_does_not_count(
    registered: object, recorder: tuple[Recorder, str], triton: EmbeddedTriton
) -> None:
    """The server gets the copy that was looked at, as if the client had sent it."""
    key = KEY.encode()

    async def status(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        answer = pb.SystemSharedMemoryStatusResponse()
        region = answer.regions[NAME]
        region.name, region.key, region.byte_size = NAME, key.decode(), 65536
        return answer.SerializeToString()

    async def infer(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        shm.set_shared_memory_region(registered, [np.zeros_like(IMAGE)])
        return call.data

    recorder[0].answers |= {"SystemSharedMemoryStatus": status, "ModelInfer": infer}
    async with running(recorder[1], shared_memory="inspect") as sidecar:
        reply = await ask(sidecar.channel, "ModelInfer", by_reference())
    expected = infer_request({"image": IMAGE}, model="identity_fp32")
    assert pb.ModelInferRequest.FromString(reply.data) == expected


@pytest.mark.triton
async def test_the_copy_is_validated_like_any_other_tensor(
    registered: object, open_front: Running
) -> None:
    shm.set_shared_memory_region(registered, [np.full_like(IMAGE, np.nan)])
    reply = await ask(open_front.channel, "ModelInfer", by_reference())
    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "NaN" in reply.details


@pytest.mark.triton
@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (by_reference("unregistered"), "not registered"),
        (by_reference(offset=65536 - IMAGE.nbytes + 1), "lie outside it"),
        (by_reference(offset=2**62), "lie outside it"),
        (by_reference(size=IMAGE.nbytes - 1), "bytes"),
        (by_reference(size=-1), "at least 0"),
        (by_reference("triton_python_backend_shm_region_0"), "server's own"),
    ],
    ids=["unknown", "past the end", "far past", "size", "negative", "reserved"],
)
async def test_bad_references_are_refused(
    reference: pb.ModelInferRequest, text: str, registered: object, open_front: Running
) -> None:
    reply = await ask(open_front.channel, "ModelInfer", reference)
    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
    assert text in reply.details


@pytest.mark.triton
async def test_a_region_registered_anew_elsewhere_is_noticed(
    registered: object, open_front: Running, direct: grpc.aio.Channel
) -> None:
    """By another worker, or past the proxy."""
    reply = await ask(open_front.channel, "ModelInfer", by_reference())
    assert echoed(reply.data) == IMAGE.tobytes()
    other = shm.create_shared_memory_region("other", f"{KEY}_other", IMAGE.nbytes)
    try:
        shm.set_shared_memory_region(other, [IMAGE + 1])
        await ask(
            direct,
            "SystemSharedMemoryUnregister",
            pb.SystemSharedMemoryUnregisterRequest(name=NAME),
        )
        request = pb.SystemSharedMemoryRegisterRequest(
            name=NAME, key=f"{KEY}_other", byte_size=IMAGE.nbytes
        )
        await ask(direct, "SystemSharedMemoryRegister", request)
        reply = await ask(open_front.channel, "ModelInfer", by_reference())
        assert echoed(reply.data) == (IMAGE + 1).tobytes()
    finally:
        shm.destroy_shared_memory_region(other)


# -- the reader by itself ------------------------------------------------------------------------


@pytest.fixture
async def reader(recorder: tuple[Recorder, str]) -> AsyncIterator[SharedMemoryReader]:
    upstream = Upstream(recorder[1], max_message_bytes=1_000_000)
    yield SharedMemoryReader(upstream, max_bytes=40_000)
    await upstream.close()


def claim(recorder: Recorder, key: str, *, size: int = 65536, offset: int = 0) -> None:
    """Let the server say that the region `r` is this object."""
    answer = pb.SystemSharedMemoryStatusResponse()
    region = answer.regions["r"]
    region.name, region.key, region.byte_size, region.offset = "r", key, size, offset

    async def status(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        return answer.SerializeToString()

    recorder.answers["SystemSharedMemoryStatus"] = status


async def read(reader: SharedMemoryReader, size: int = 8, offset: int = 0) -> bytes:
    return await reader.read("r", offset=offset, byte_size=size, timeout_s=5, metadata=None)


@pytest.mark.parametrize("prefix", ["/", ""])
async def test_offsets_add_up(
    prefix: str, reader: SharedMemoryReader, recorder: tuple[Recorder, str], handle: object
) -> None:
    claim(recorder[0], f"{prefix}{NAME}", offset=4)
    assert await read(reader, 8, 12) == IMAGE.tobytes()[16:24]
    assert await read(reader, 0, 0) == b""


@pytest.mark.parametrize(
    "key",
    [
        *(
            "/../etc/passwd",
            "../etc/passwd",
            "/etc/passwd",
            "a/b",
            "/",
            "",
            ".",
            "..",
            "/..",
            "a\0b",
        ),
        *("/triton_python_backend_shm_region_1", "triton_python_backend_shm_region_1", "x" * 300),
        *("//etc", " a", "a\n", "~root", "/-rf"),
    ],
)
async def test_keys_that_are_paths_or_reserved_are_not_opened(
    key: str, reader: SharedMemoryReader, recorder: tuple[Recorder, str]
) -> None:
    claim(recorder[0], key)
    with pytest.raises(InvalidTensor, match="may not be read"):
        await read(reader)


@pytest.mark.parametrize("what", ["link", "fifo", "folder", "nothing", "short", "far"])
async def test_what_is_not_the_object_is_refused_without_waiting(
    what: str, reader: SharedMemoryReader, recorder: tuple[Recorder, str]
) -> None:
    path = FOLDER / f"{NAME}_{what}"
    claim(recorder[0], path.name, offset=2**64 - 70000 if what == "far" else 0)
    make = {
        "link": lambda: path.symlink_to("/etc/passwd"),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "nothing": lambda: None,
        "short": lambda: path.write_bytes(b"1234567"),
        "far": lambda: path.write_bytes(b"12345678"),
    }
    make[what]()
    try:
        with pytest.raises(InvalidTensor, match="'r'"):
            await asyncio.wait_for(read(reader), 5)
    finally:
        if what == "folder":
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


async def test_a_tensor_over_the_limit_is_not_read(
    reader: SharedMemoryReader, recorder: tuple[Recorder, str], handle: object
) -> None:
    claim(recorder[0], NAME)
    with pytest.raises(InvalidTensor, match="over the limit of 40000"):
        await read(reader, 40_001)
    assert len(await read(reader, 40_000)) == 40_000


async def test_all_tensors_together_are_bounded_like_one(
    reader: SharedMemoryReader, recorder: tuple[Recorder, str], handle: object
) -> None:
    claim(recorder[0], NAME)
    message = pb.ModelInferRequest(model_name="m")
    for index in range(4):
        tensor = message.inputs.add(name=str(index), datatype="UINT8", shape=[10_000])
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_byte_size"].int64_param = 10_000
    tensors = InferRequest.parse(message.SerializeToString()).tensors
    copies = await reader.read_all(tensors, timeout_s=5, metadata=None)
    assert [len(copies[index]) for index in range(4)] == [10_000] * 4
    asked = len(recorder[0].calls)
    with pytest.raises(InvalidTensor, match="50000 bytes are over the limit of 40000"):
        await reader.read_all([*tensors, tensors[0]], timeout_s=5, metadata=None)
    assert len(recorder[0].calls) == asked


async def test_only_not_found_means_unregistered(
    reader: SharedMemoryReader, recorder: tuple[Recorder, str]
) -> None:
    async def fail(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "this protocol is restricted")
        return b""

    recorder[0].answers["SystemSharedMemoryStatus"] = fail
    with pytest.raises(UpstreamError, match="restricted"):
        await read(reader)


async def test_no_server_is_not_a_bad_tensor() -> None:
    async with recording() as (_, address):
        pass
    upstream = Upstream(address, max_message_bytes=1000)
    with pytest.raises(UpstreamUnavailable):
        await read(SharedMemoryReader(upstream, max_bytes=1000))
    await upstream.close()
