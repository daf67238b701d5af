from __future__ import annotations

from typing import get_args

import grpc
import pytest

from proxy.config import RpcGroup
from proxy.errors import InvalidRequest, SharedMemoryRefused
from proxy.pb import open_inference_pb2 as pb
from proxy.regions import refuse_call, refuse_reference, without_ours
from proxy.rpc import RPCS
from proxy.wire import Head
from tests.proxy.running import Running, ask, running
from tuning.triton import EmbeddedTriton

OURS = "breakwater-1234"
STATUS = RPCS["SystemSharedMemoryStatus"]


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_our_memory_cannot_be_named(where: str) -> None:
    def head(region: str) -> Head:
        message = pb.ModelInferRequest(model_name="m")
        item = getattr(message, where).add(name="a")
        item.parameters["shared_memory_region"].string_param = region
        return Head.parse(message.SerializeToString())

    refuse_reference(head("theirs"))
    with pytest.raises(SharedMemoryRefused):
        refuse_reference(head(OURS))


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name=OURS)),
        ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name=OURS)),
        ("SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(name=OURS, key="k")),
        *(
            ("SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(name="x", key=key))
            for key in (OURS, f"/{OURS}", f"//{OURS}")
        ),
    ],
)
def test_calls_about_our_memory_are_refused(name: str, request_: object) -> None:
    data = request_.SerializeToString()  # type: ignore[attr-defined]
    with pytest.raises(SharedMemoryRefused):
        refuse_call(RPCS[name], data, in_use=False)


def test_other_calls_are_not() -> None:
    refuse_call(STATUS, pb.SystemSharedMemoryStatusRequest().SerializeToString(), in_use=True)
    refuse_call(RPCS["SystemSharedMemoryUnregister"], b"", in_use=False)
    refuse_call(RPCS["CudaSharedMemoryStatus"], b"", in_use=True)


def test_calls_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="SystemSharedMemoryStatusRequest"):
        refuse_call(STATUS, b"\xff", in_use=True)
    # A tag of more than 32 bits: the server's protobuf drops the rest and reads the name.
    wide = b"\x8a\x80\x80\x80\x10" + bytes([len(OURS)]) + OURS.encode()
    with pytest.raises(InvalidRequest):
        refuse_call(STATUS, wide, in_use=True)


def test_all_regions_are_not_unregistered_under_ours() -> None:
    with pytest.raises(SharedMemoryRefused, match="name the one"):
        refuse_call(RPCS["SystemSharedMemoryUnregister"], b"", in_use=True)
    other = pb.SystemSharedMemoryUnregisterRequest(name="theirs").SerializeToString()
    refuse_call(RPCS["SystemSharedMemoryUnregister"], other, in_use=True)


def test_lists_lack_ours() -> None:
    status = pb.SystemSharedMemoryStatusResponse()
    status.regions["theirs"].name = "theirs"
    plain = status.SerializeToString()
    assert without_ours(STATUS, plain) is plain
    status.regions[OURS].key = f"/{OURS}"
    assert without_ours(STATUS, status.SerializeToString()) == plain
    assert without_ours(RPCS["ModelStatistics"], b"\xff") == b"\xff"


@pytest.mark.triton
async def test_a_client_finds_nothing_of_ours(triton: EmbeddedTriton) -> None:
    settings = {
        "upstream_shared_memory": "system",
        "rpc": {"allow": list(get_args(RpcGroup))},
        "shared_memory": "passthrough",
    }
    async with (
        running(triton.grpc_address, **settings) as sidecar,
        grpc.aio.insecure_channel(triton.grpc_address) as direct,
    ):
        everything = pb.SystemSharedMemoryStatusRequest()
        at_triton = await ask(direct, STATUS.name, everything)
        (region,) = pb.SystemSharedMemoryStatusResponse.FromString(at_triton.data).regions
        shown = await ask(sidecar.channel, STATUS.name, everything)
        assert shown.code is grpc.StatusCode.OK
        assert shown.data == b""
        await _refused(sidecar, region)


async def _refused(sidecar: Running, region: str) -> None:
    named = pb.SystemSharedMemoryStatusRequest(name=region)
    assert (await ask(sidecar.channel, STATUS.name, named)).code is not grpc.StatusCode.OK
    request = pb.ModelInferRequest(model_name="identity_fp32")
    tensor = request.inputs.add(name="image", datatype="FP32", shape=[1, 3, 32, 32])
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = 12288
    reply = await ask(sidecar.channel, "ModelInfer", request)
    assert reply.code is grpc.StatusCode.PERMISSION_DENIED
