"""What one protobuf implementation reads and another sets aside."""

from __future__ import annotations

import dataclasses
import time
from multiprocessing import shared_memory

import grpc
import numpy as np
import pytest

from proxy.errors import InvalidRequest
from proxy.pb import open_inference_pb2 as pb
from proxy.unread import LOOKED_AT_BYTES, refuse_unread
from proxy.wire import Head
from tests.proxy.running import ask, running
from tests.proxy.strategies import field, varint
from tuning.triton import EmbeddedTriton

EXTRAS = {
    "unknown number": field(9, b"x"),
    "key of another type": varint(1 << 3) + b"\x01",
    "value of another type": varint(2 << 3) + b"\x01",
    "unknown varint": varint(3 << 3) + b"\x01",
    "group": bytes([4 << 3 | 3, 4 << 3 | 4]),
}
FP32 = field(1, b"IN_FP32") + field(2, b"FP32") + field(3, varint(4))
MODEL = field(1, b"all_types")


def entry(key: bytes, value: bytes, extra: bytes = EXTRAS["unknown varint"]) -> bytes:
    """A map entry with more in it than there should be."""
    return field(1, key) + field(2, value) + extra


@dataclasses.dataclass
class Hidden:
    """A request of all_types whose parameters upb does not show."""

    inputs: bytes = b""
    outputs: bytes = b""
    request: bytes = b""

    def message(self, values: np.ndarray) -> bytes:
        return (
            MODEL
            + (field(4, self.request) if self.request else b"")
            + field(5, FP32 + self.inputs)
            + field(6, field(1, b"OUT_FP32") + self.outputs)
            + field(7, values.tobytes())
        )


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("where", ["inputs", "outputs", "request"])
def test_a_map_entry_with_more_than_key_and_value(where: str, extra: bytes) -> None:
    hidden = entry(b"shared_memory_region", field(3, b"r"), extra)
    number = {"inputs": 4, "outputs": 2}.get(where)
    data = hidden if number is None else field(number, hidden)
    with pytest.raises(InvalidRequest, match="field parameters of"):
        Head.parse(Hidden(**{where: data}).message(np.zeros(4, np.float32)))


@pytest.mark.parametrize("number", [1, 3, 5])
def test_another_wire_type_than_the_protocols(number: int) -> None:
    wrong = MODEL + field(5, FP32 + varint(number << 3 | 1) + bytes(8))
    with pytest.raises(InvalidRequest, match="another wire type"):
        Head.parse(wrong)


def test_fields_of_a_later_protocol_are_no_reason() -> None:
    later = field(40, b"x") + varint(41 << 3) + b"\x01"
    data = later + field(5, later) + field(6, later)
    refuse_unread(pb.ModelInferRequest.FromString(data), len(data))


@pytest.mark.parametrize("wire_type", [0, 1])
def test_typed_values_of_another_wire_type(wire_type: int) -> None:
    """A BOOL tensor with such a field was valid, and could not be made into a query."""
    stray = varint(1 << 3 | 1) + bytes(8) if wire_type else varint(6 << 3) + b"\x01"
    typed = field(1, b"b") + field(2, b"BOOL") + field(3, b"\x01") + field(5, b"\x08\x01" + stray)
    with pytest.raises(InvalidRequest, match="InferTensorContents"):
        Head.parse(MODEL + field(5, typed))


def typed_request(values: np.ndarray, more: bytes = b"") -> bytes:
    """A request whose values are part of its head."""
    shape = field(3, varint(values.size))
    contents = field(5, field(6, values.tobytes()) + more)
    return MODEL + field(5, field(1, b"IN_FP32") + field(2, b"FP32") + shape + contents)


def test_long_heads_without_unknown_fields() -> None:
    values = np.arange(LOOKED_AT_BYTES, dtype=np.float32)
    head = Head.parse(typed_request(values))
    assert head.inputs[0].payload() == values.tobytes()


def test_millions_of_unknown_fields_are_not_looked_at_one_by_one() -> None:
    many = (varint(15 << 3) + b"\x01") * 2_000_000
    began = time.process_time()
    with pytest.raises(InvalidRequest, match="send the tensors raw"):
        Head.parse(typed_request(np.zeros(1, np.float32), many))
    assert time.process_time() - began < 0.2


def region_of(values: np.ndarray, hide: bytes) -> bytes:
    """The parameters that put an input or output in shared memory, hidden by `hide`."""
    size = varint(2 << 3) + varint(values.nbytes)
    return field(4, entry(b"shared_memory_region", field(3, b"unread"), hide)) + field(
        4, entry(b"shared_memory_byte_size", size, hide)
    )


@pytest.mark.triton
async def test_triton_obeys_what_is_hidden_so_it_is_refused(triton: EmbeddedTriton) -> None:
    """The attack itself: benign values in the message, others in a region read in their place."""
    benign, evil = np.zeros(4, np.float32), np.full(4, 666, np.float32)
    memory = shared_memory.SharedMemory(create=True, size=16)
    memory.buf[:] = evil.tobytes()
    register = pb.SystemSharedMemoryRegisterRequest(name="unread", key=memory.name, byte_size=16)
    attack = Hidden(inputs=region_of(benign, EXTRAS["unknown varint"])).message(benign)
    try:
        async with (
            grpc.aio.insecure_channel(triton.grpc_address) as direct,
            running(triton.grpc_address) as sidecar,
        ):
            assert (await ask(direct, "SystemSharedMemoryRegister", register)).code.value[0] == 0
            answer = pb.ModelInferResponse.FromString(
                (await ask(direct, "ModelInfer", attack)).data
            )
            assert answer.raw_output_contents[0] == evil.tobytes()
            reply = await ask(sidecar.channel, "ModelInfer", attack)
            assert reply.code is grpc.StatusCode.INVALID_ARGUMENT
            assert "field parameters" in reply.details
            unregister = pb.SystemSharedMemoryUnregisterRequest(name="unread")
            await ask(direct, "SystemSharedMemoryUnregister", unregister)
    finally:
        memory.close()
        memory.unlink()
