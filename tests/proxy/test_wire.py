from __future__ import annotations

import struct
from collections.abc import Iterator
from multiprocessing import shared_memory

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.message import DecodeError
from hypothesis import assume, event, given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from proxy.errors import InvalidRequest, InvalidTensor
from proxy.fields import split
from proxy.pb import open_inference_pb2 as pb
from proxy.rpc import RPCS
from proxy.wire import (
    InferRequest,
    InferResponse,
    SharedMemoryRef,
    StreamResponse,
    as_numpy,
    build_infer_request,
    quoted,
    stream_error,
)
from tests.builders import DATATYPE_OF, framed, infer_request, infer_response
from tests.proxy.strategies import (
    SIZES,
    TYPED,
    damaged,
    field,
    messages,
    payloads,
    product,
    set_typed,
    unusual,
    varint,
)
from tuning.triton import EmbeddedTriton

IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
OURS = (pb.DESCRIPTOR,)
THEIRS = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)


# --- our description of the protocol ------------------------------------------------------------


def message_types(container) -> Iterator:
    types = getattr(container, "nested_types", None)
    for message in container.message_types_by_name.values() if types is None else types:
        yield message
        yield from message_types(message)


def enums(files) -> dict:
    holders = [*files, *(m for file in files for m in message_types(file))]
    return {
        relative(enum): [(value.name, value.number) for value in enum.values]
        for holder in holders
        for enum in holder.enum_types_by_name.values()
    }


def relative(descriptor) -> str | None:
    if descriptor is None:
        return None
    return descriptor.full_name.removeprefix(descriptor.file.package + ".")


def facts(descriptor) -> tuple:
    return (
        descriptor.number,
        descriptor.type,
        descriptor.label,
        descriptor.is_packed,
        descriptor.json_name,
        descriptor.containing_oneof and descriptor.containing_oneof.name,
        relative(descriptor.message_type),
        relative(descriptor.enum_type),
    )


def described(files) -> dict:
    return {
        relative(message): (
            message.GetOptions().map_entry,
            {item.name: facts(item) for item in message.fields},
        )
        for file in files
        for message in message_types(file)
    }


def test_every_message_and_field_is_tritons() -> None:
    assert len(described(THEIRS)) > 100
    assert described(OURS) == described(THEIRS)


def test_every_enum_is_tritons() -> None:
    assert enums(OURS) == enums(THEIRS)


def test_every_rpc_is_tritons() -> None:
    ours, theirs = (
        {
            method.name: (
                relative(method.input_type),
                relative(method.output_type),
                method.client_streaming,
                method.server_streaming,
            )
            for method in file.services_by_name["GRPCInferenceService"].methods
        }
        for file in (OURS[0], THEIRS[0])
    )
    assert ours == theirs


# --- requests, by hand --------------------------------------------------------------------------


def test_a_request_of_tritonclient() -> None:
    image, label = (
        triton.InferInput("image", IMAGE.shape, "FP32"),
        triton.InferInput("label", [2], "BYTES"),
    )
    image.set_data_from_numpy(IMAGE)
    label.set_data_from_numpy(np.array([b"cat", b""], np.object_))
    message = triton._utils._get_inference_request(
        model_name="m",
        inputs=[image, label],
        model_version="2",
        request_id="r",
        outputs=[triton.InferRequestedOutput("logits")],
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    request = InferRequest.parse(message.SerializeToString())
    head = request.head
    assert (head.model_name, head.model_version, request.request_id) == ("m", "2", "r")
    assert [output.name for output in head.outputs] == ["logits"]
    assert [(t.index, t.name, t.datatype, t.shape) for t in request.tensors] == [
        (0, "image", "FP32", (1, 3, 2, 2)),
        (1, "label", "BYTES", (2,)),
    ]
    np.testing.assert_array_equal(as_numpy(request.tensors[0]), IMAGE)
    assert as_numpy(request.tensors[1]).tolist() == [b"cat", b""]


def test_tensors_are_views_of_the_message() -> None:
    data = infer_request({"image": IMAGE}).SerializeToString()
    request = InferRequest.parse(data)
    assert request.data is data
    assert request.tensors[0].data is not None
    assert request.tensors[0].data.obj is data
    assert request.tensors[0].payload() is request.tensors[0].data
    assert not request.head.raw_input_contents


def shared_and_raw() -> pb.ModelInferRequest:
    message = infer_request({"a": IMAGE, "b": IMAGE + 1})
    shared = pb.ModelInferRequest.InferInputTensor(name="s", datatype="FP32", shape=[2])
    shared.parameters["shared_memory_region"].string_param = "region"
    shared.parameters["shared_memory_byte_size"].int64_param = 8
    shared.parameters["shared_memory_offset"].int64_param = 16
    shared.parameters["mine"].bool_param = True
    inputs = [message.inputs[0], shared, message.inputs[1]]
    mixed = pb.ModelInferRequest(model_name="m", inputs=inputs)
    mixed.raw_input_contents.extend(message.raw_input_contents)
    return mixed


def test_raw_entries_skip_inputs_in_shared_memory() -> None:
    a, shared, b = InferRequest.parse(shared_and_raw().SerializeToString()).tensors
    assert shared.shared_memory == SharedMemoryRef("region", 8, 16)
    assert shared.data is None
    np.testing.assert_array_equal(as_numpy(a), IMAGE)
    np.testing.assert_array_equal(as_numpy(b), IMAGE + 1)
    with pytest.raises(InvalidTensor, match="tensor 's' has no data"):
        as_numpy(shared)


def test_reading_shared_memory_parameters_changes_nothing() -> None:
    message = pb.ModelInferRequest()
    message.inputs.add(name="s").parameters["shared_memory_region"].string_param = "r"
    request = InferRequest.parse(message.SerializeToString())
    assert request.tensors[0].shared_memory == SharedMemoryRef("r", 0, 0)
    assert request.head == message


def test_a_shared_memory_input_becomes_raw_in_its_place() -> None:
    message = shared_and_raw()
    new = InferRequest.parse(message.SerializeToString()).replace({1: b"inlined!"})
    expected = shared_and_raw()
    for key in ("region", "byte_size", "offset"):
        del expected.inputs[1].parameters[f"shared_memory_{key}"]
    expected.raw_input_contents.insert(1, b"inlined!")
    assert pb.ModelInferRequest.FromString(new) == expected


def test_typed_inputs_beside_an_inlined_one_become_raw() -> None:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="t", datatype="INT16", shape=[2]).contents.int_contents.extend([1, -2])
    shared = message.inputs.add(name="s", datatype="FP16", shape=[1])
    shared.parameters["shared_memory_region"].string_param = "r"
    other = message.inputs.add(name="other", datatype="FP16", shape=[1])
    other.parameters["shared_memory_region"].string_param = "r"
    request = InferRequest.parse(message.SerializeToString())
    first = InferRequest.parse(request.replace({1: b"\x00\x3c"}))
    assert [t.data for t in first.tensors] == [struct.pack("<hh", 1, -2), b"\x00\x3c", None]
    assert [t.contents for t in first.tensors] == [None, None, None]
    both = InferRequest.parse(request.replace({0: struct.pack("<hh", 3, 4), 1: b"\x00\x3c"}))
    assert [t.data for t in both.tensors] == [struct.pack("<hh", 3, 4), b"\x00\x3c", None]


def test_replacing_with_the_same_bytes_changes_nothing() -> None:
    data = infer_request({"a": IMAGE, "b": IMAGE}, request_id="x").SerializeToString()
    request = InferRequest.parse(memoryview(data))
    assert request.replace({0: IMAGE.tobytes(), 1: IMAGE.tobytes()}) == data
    assert request.replace({1: []}) == data
    assert request.replace({}) == data


def test_patches_replace_single_samples() -> None:
    batch = np.arange(8, dtype=np.float32).reshape(4, 2)
    request = InferRequest.parse(infer_request({"x": batch}).SerializeToString())
    sample = np.array([-1, -2], np.float32)
    new = request.replace({0: [(24, memoryview(sample.tobytes())), (8, sample.tobytes())]})
    batch[1] = batch[3] = sample
    np.testing.assert_array_equal(as_numpy(InferRequest.parse(new).tensors[0]), batch)
    assert new[: request.tensors[0].piece.start] == request.data[: request.tensors[0].piece.start]


def test_strings_may_grow_and_shrink() -> None:
    words = [np.array([b"a" * 200, b"b"], object), np.array([b"c"], object)]
    message = infer_request({"first": words[0], "second": words[1]}, request_id="x")
    request = InferRequest.parse(message.SerializeToString())
    message.raw_input_contents[0] = framed([b"", b"b"])
    message.raw_input_contents[1] = framed([b"d" * 130])
    new = request.replace({1: framed([b"d" * 130]), 0: memoryview(framed([b"", b"b"]))})
    assert new == message.SerializeToString()


def test_patches_reach_typed_values() -> None:
    message = pb.ModelInferRequest()
    message.inputs.add(name="t", datatype="FP32", shape=[3]).contents.fp32_contents[:] = [1, 2, 3]
    request = InferRequest.parse(message.SerializeToString())
    patches = [(8, struct.pack("<f", 9)), (0, struct.pack("<f", 7))]
    new = pb.ModelInferRequest.FromString(request.replace({0: patches}))
    assert list(new.inputs[0].contents.fp32_contents) == [7, 2, 9]
    assert list(request.head.inputs[0].contents.fp32_contents) == [1, 2, 3]


@pytest.mark.parametrize(
    "patches", [[(9, b"abcd")], [(-1, b"a")], [(0, b"abcd"), (3, b"a")], [(13, b"")]]
)
@pytest.mark.parametrize("typed", [False, True])
def test_patches_outside_the_payload(patches: list[tuple[int, bytes]], typed: bool) -> None:
    x = np.zeros(3, np.float32)
    message = infer_request({"x": x})
    if typed:
        message.ClearField("raw_input_contents")
        message.inputs[0].contents.fp32_contents.extend(x)
    with pytest.raises(ValueError, match="patch at"):
        InferRequest.parse(message.SerializeToString()).replace({0: patches})


def test_an_index_outside_the_request() -> None:
    with pytest.raises(IndexError):
        InferRequest.parse(b"").replace({0: b""})


def test_typed_replacement_must_fit_the_datatype() -> None:
    message = pb.ModelInferRequest()
    message.inputs.add(name="t", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
    with pytest.raises(InvalidTensor, match="element 0"):
        InferRequest.parse(message.SerializeToString()).replace({0: b"\x05"})


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (field(1, b"\xff"), "not a valid ModelInferRequest"),
        (field(5, b"\x0a\x05"), "not a valid ModelInferRequest"),
        (field(5, field(1, b"deep") + field(3, bytes(33))), "'deep' has 33 axes, more than 32"),
    ],
)
def test_requests_refused(message: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        InferRequest.parse(message)


def test_errors_name_the_tensor() -> None:
    message = pb.ModelInferRequest()
    message.inputs.add(name="odd", datatype="FP8", shape=[1]).contents.fp32_contents.append(1)
    message.inputs.add(name="half", datatype="FP16", shape=[1]).contents.fp32_contents.append(1)
    odd, half = InferRequest.parse(message.SerializeToString()).tensors
    with pytest.raises(InvalidTensor, match="tensor 'odd' has unknown datatype 'FP8'"):
        as_numpy(odd)
    with pytest.raises(InvalidTensor, match="tensor 'half': FP16 has no typed form"):
        as_numpy(half)
    wrong = InferRequest.parse(infer_request({"image": IMAGE}).SerializeToString()).tensors[0]
    wrong.shape = (5,)
    with pytest.raises(InvalidTensor, match="tensor 'image': 48 bytes"):
        as_numpy(wrong)


@pytest.mark.parametrize(
    ("text", "result"),
    [("image", "'image'"), ("a\nb\u2028", r"'a\nb\u2028'"), ("x" * 65, f"'{'x' * 63}'...")],
)
def test_names_in_errors_are_short_and_plain(text: str, result: str) -> None:
    assert quoted(text) == result


# --- requests, by property ----------------------------------------------------------------------


def agrees(request: InferRequest, full: pb.ModelInferRequest) -> None:
    """What was read is what protobuf reads from the whole message."""
    assert [piece.view for piece in request.pieces] == list(full.raw_input_contents)
    assert [t.name for t in request.tensors] == [item.name for item in full.inputs]
    raw = iter(full.raw_input_contents)
    for tensor, item in zip(request.tensors, full.inputs, strict=True):
        assert (tensor.datatype, tensor.shape) == (item.datatype, tuple(item.shape))
        assert tensor.contents == (item.contents if item.HasField("contents") else None)
        if "shared_memory_region" in item.parameters:
            assert tensor.shared_memory is not None
            assert tensor.data is None
        else:
            assert tensor.shared_memory is None
            assert tensor.data == next(raw, None)
    head = pb.ModelInferRequest()
    head.CopyFrom(full)
    head.ClearField("raw_input_contents")
    assert request.request_id == head.id
    head.ClearField("id")
    # Compared as bytes too: equality of messages looks past NaN's bits and unknown fields.
    assert request.head.SerializeToString(deterministic=True) == head.SerializeToString(
        deterministic=True
    )


@given(st.data(), st.sampled_from([bytes, memoryview]))
def test_reads_what_protobuf_reads(data: st.DataObject, kind) -> None:
    message = data.draw(messages())
    wire = data.draw(unusual(message))
    request = InferRequest.parse(kind(wire))
    agrees(request, pb.ModelInferRequest.FromString(wire))
    assert bytes(request.data) == wire


@given(damaged())
def test_never_reads_what_protobuf_reads_otherwise(wire: bytes) -> None:
    try:
        full = pb.ModelInferRequest.FromString(wire)
    except DecodeError:
        with pytest.raises(InvalidRequest):
            InferRequest.parse(wire)
        event("refused by both")
        return
    try:
        request = InferRequest.parse(wire)
    except InvalidRequest:
        event("refused by the proxy only")
        return
    event("read by both")
    agrees(request, full)
    for tensor in request.tensors:
        try:
            as_numpy(tensor)
        except InvalidRequest:
            event("read, but not an array")


def changed_payload(data: st.DataObject, datatype: str, count: int, old: bytes) -> tuple:
    """A change for `replace` and the payload it leads to."""
    new = data.draw(payloads(datatype, count))
    if not old or len(new) != len(old) or data.draw(st.booleans()):
        return new, new
    cuts = sorted(data.draw(st.sets(st.integers(0, len(old)), max_size=4)))
    patches = [(a, new[a:b]) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    result = bytearray(old)
    for start, patch in patches:
        result[start : start + len(patch)] = patch
    if datatype == "BYTES":  # patches would have to respect the framing
        return new, new
    return data.draw(st.permutations(patches)), bytes(result)


@given(st.data())
def test_replaces_as_protobuf_edits(data: st.DataObject) -> None:
    wire = data.draw(unusual(data.draw(messages())))
    expected = pb.ModelInferRequest.FromString(wire)
    assume("\0" not in expected.id)  # refused
    request = InferRequest.parse(wire)
    inline = [t for t in request.tensors if t.shared_memory is None]
    chosen = data.draw(st.lists(st.sampled_from(inline), unique_by=id)) if inline else []
    changes = {}
    for tensor in chosen:
        old = bytes(tensor.payload())
        change, new = changed_payload(data, tensor.datatype, product(tensor.shape), old)
        changes[tensor.index] = change
        if tensor.data is not None:
            expected.raw_input_contents[inline.index(tensor)] = new
        else:
            set_typed(expected.inputs[tensor.index].contents, tensor.datatype, new)
    result = request.replace(changes)
    edited = pb.ModelInferRequest.FromString(result)
    assert edited.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )
    if request.pieces:
        assert split(result, 7)[0] == split(wire, 7)[0]
    if not changes:
        assert result == wire


@given(st.data())
def test_inlines_shared_memory_as_protobuf_edits(data: st.DataObject) -> None:
    message = data.draw(messages())
    wire = data.draw(unusual(message))
    request = InferRequest.parse(wire)
    shared = [t for t in request.tensors if t.shared_memory is not None]
    chosen = data.draw(st.lists(st.sampled_from(shared), unique_by=id)) if shared else []
    changes = {t.index: data.draw(payloads(t.datatype, product(t.shape))) for t in chosen}
    expected = pb.ModelInferRequest.FromString(wire)
    if changes:
        expected.ClearField("raw_input_contents")
        for tensor, item in zip(request.tensors, expected.inputs, strict=True):
            if tensor.index in changes:
                for key in [k for k in item.parameters if k.startswith("shared_memory_")]:
                    del item.parameters[key]
                expected.raw_input_contents.append(changes[tensor.index])
            elif tensor.shared_memory is None:
                expected.raw_input_contents.append(bytes(tensor.payload()))
                item.ClearField("contents")
    edited = pb.ModelInferRequest.FromString(request.replace(changes))
    assert edited.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


# --- responses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DATATYPE_OF, ids=str)
def test_outputs_of_every_datatype_as_tritonclient_reads_them(dtype: np.dtype) -> None:
    values = np.arange(6).reshape(3, 2)
    first = np.array([str(v).encode() for v in values.ravel()], object).reshape(3, 2)
    first = first if dtype == np.object_ else values.astype(dtype)
    message = infer_response({"first": first, "second": IMAGE})
    response = InferResponse.parse(message.SerializeToString())
    theirs = triton.InferResult(message)
    for name in ("first", "second"):
        tensor = response.tensor(name)
        assert tensor is not None
        np.testing.assert_array_equal(as_numpy(tensor), theirs.as_numpy(name))
        assert as_numpy(tensor).dtype == theirs.as_numpy(name).dtype
    assert response.tensor("third") is None


@given(st.data(), st.sampled_from(sorted(SIZES)), st.booleans())
def test_typed_and_raw_outputs_are_the_same(data: st.DataObject, name: str, typed: bool) -> None:
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
    raw = data.draw(payloads(name, product(shape)))
    message = pb.ModelInferResponse(model_name="m", id="7")
    output = message.outputs.add(name="o", datatype=name, shape=shape)
    reference = InferResponse.parse(
        pb.ModelInferResponse(outputs=[output], raw_output_contents=[raw]).SerializeToString()
    )
    if typed and name in TYPED:
        output.contents.SetInParent()
        set_typed(output.contents, name, raw)
    else:
        message.raw_output_contents.append(raw)
    response = InferResponse.parse(message.SerializeToString())
    assert response.head.id == "7"
    np.testing.assert_array_equal(as_numpy(response.tensors[0]), as_numpy(reference.tensors[0]))
    assert list(as_numpy(response.tensors[0]).shape) == shape


@given(st.data(), st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=3), st.booleans())
def test_outputs_are_replaced_as_protobuf_edits(
    data: st.DataObject, names: list[str], typed: bool
) -> None:
    typed = typed and all(name in TYPED for name in names)
    message = pb.ModelInferResponse(model_name="m", id="7")
    message.parameters["note"].string_param = "kept"
    shapes = [data.draw(st.lists(st.integers(0, 3), max_size=3)) for _ in names]
    for number, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        output = message.outputs.add(name=f"o{number}", datatype=name, shape=shape)
        raw = data.draw(payloads(name, product(shape)))
        if typed:
            output.contents.SetInParent()
            set_typed(output.contents, name, raw)
        else:
            message.raw_output_contents.append(raw)
    wire = message.SerializeToString()
    response = InferResponse.parse(wire)
    changes = {}
    for index in data.draw(st.sets(st.integers(0, len(names) - 1))):
        old = bytes(response.tensors[index].payload())
        change, new = changed_payload(data, names[index], product(shapes[index]), old)
        changes[index] = change
        if typed:
            set_typed(message.outputs[index].contents, names[index], new)
        else:
            message.raw_output_contents[index] = new
    result = response.replace(changes)
    edited = pb.ModelInferResponse.FromString(result)
    assert edited.SerializeToString(deterministic=True) == message.SerializeToString(
        deterministic=True
    )
    if not typed:
        assert split(result, 6)[0] == split(wire, 6)[0]
    if not changes:
        assert result == wire


def test_a_typed_output_beside_a_raw_one_is_replaced() -> None:
    message = infer_response({"raw": IMAGE, "typed": IMAGE})
    del message.raw_output_contents[1]
    message.outputs[1].contents.fp32_contents.extend(IMAGE.ravel().tolist())
    new = InferResponse.parse(message.SerializeToString()).replace({1: [(0, b"\0" * 4)]})
    edited = InferResponse.parse(new)
    assert as_numpy(edited.tensors[0]).ravel().tolist() == IMAGE.ravel().tolist()
    assert as_numpy(edited.tensors[1]).ravel().tolist() == [0, *IMAGE.ravel().tolist()[1:]]


def test_outputs_without_values_are_not_replaced() -> None:
    response = InferResponse.parse(
        pb.ModelInferResponse(
            outputs=[{"name": "o", "datatype": "FP32", "shape": [1]}]
        ).SerializeToString()
    )
    with pytest.raises(InvalidTensor, match="has no data"):
        response.replace({0: [(0, b"1234")]})
    with pytest.raises(IndexError):
        response.replace({1: b""})


@pytest.mark.triton
def test_triton_deals_raw_entries_as_we_do(triton: EmbeddedTriton) -> None:
    """Inputs in shared memory are skipped; outputs there have an empty entry."""
    memory = shared_memory.SharedMemory(create=True, size=64)
    channel = grpc.insecure_channel(triton.grpc_address)

    def call(name: str, message) -> bytes:
        return channel.unary_unary(RPCS[name].path)(message.SerializeToString(), timeout=30)

    try:
        memory.buf[:8] = np.array([5, 6], np.int32).tobytes()
        region = pb.SystemSharedMemoryRegisterRequest(
            name="dealing", key=f"/{memory.name}", byte_size=64
        )
        call("SystemSharedMemoryRegister", region)
        message = pb.ModelInferRequest(model_name="all_types")
        message.inputs.add(name="IN_INT32", datatype="INT32", shape=[2])
        message.inputs.add(name="IN_FP32", datatype="FP32", shape=[1])
        message.raw_input_contents.append(struct.pack("<f", 1.5))
        message.outputs.add(name="OUT_INT32")
        message.outputs.add(name="OUT_FP32")
        for item in (message.inputs[0], message.outputs[0]):
            item.parameters["shared_memory_region"].string_param = "dealing"
            item.parameters["shared_memory_byte_size"].int64_param = 8
        message.outputs[0].parameters["shared_memory_offset"].int64_param = 32
        response = InferResponse.parse(call("ModelInfer", message))
        call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="dealing"))
        assert [(t.name, t.data) for t in response.tensors] == [
            ("OUT_INT32", b""),
            ("OUT_FP32", struct.pack("<f", 1.5)),
        ]
        assert memory.buf[32:40] == memory.buf[:8]
    finally:
        channel.close()
        memory.close()
        memory.unlink()


def test_outputs_in_shared_memory_have_an_empty_raw_entry() -> None:
    message = infer_response({"shared": np.empty(0, np.float32), "plain": IMAGE})
    message.outputs[0].shape[:] = [4]
    shared, plain = InferResponse.parse(message.SerializeToString()).tensors
    np.testing.assert_array_equal(as_numpy(plain), IMAGE)
    with pytest.raises(InvalidTensor, match="tensor 'shared': 0 bytes"):
        as_numpy(shared)


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (InferResponse.parse, field(1, b"\xff")),
        (InferResponse.parse, b"\x0a"),
        (StreamResponse.parse, field(1, b"\xff")),
        (StreamResponse.parse, field(2, field(1, b"\xff"))),
        (StreamResponse.parse, b"\x12"),
    ],
)
def test_broken_responses(parse, message: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(message)


@given(st.binary(max_size=60))
def test_random_bytes_as_responses(wire: bytes) -> None:
    for parse in (InferResponse.parse, StreamResponse.parse):
        try:
            parse(wire)
        except InvalidRequest:
            event(f"{parse.__self__.__name__} refused")


# --- streams ------------------------------------------------------------------------------------


def test_an_answer_of_a_stream() -> None:
    inner = infer_response({"logits": IMAGE}, request_id="9")
    message = pb.ModelStreamInferResponse(infer_response=inner)
    answer = StreamResponse.parse(message.SerializeToString())
    assert (answer.error, answer.request_id) == ("", "9")
    assert answer.response is not None
    np.testing.assert_array_equal(as_numpy(answer.response.tensors[0]), IMAGE)


def test_an_error_of_a_stream() -> None:
    wire = stream_error("9", "no")
    theirs = service_pb2.ModelStreamInferResponse.FromString(wire)
    assert (theirs.error_message, theirs.infer_response.id) == ("no", "9")
    ours = StreamResponse.parse(wire)
    assert (ours.error, ours.request_id) == ("no", "9")


def test_an_error_without_a_request() -> None:
    answer = StreamResponse.parse(field(1, b"gone"))
    assert (answer.error, answer.request_id, answer.response) == ("gone", "", None)


def test_an_answer_in_two_pieces_is_merged_as_protobuf_merges_it() -> None:
    first, second = infer_response({"a": IMAGE}, request_id="1"), pb.ModelInferResponse(id="2")
    wire = field(2, first.SerializeToString()) + field(2, second.SerializeToString())
    full = pb.ModelStreamInferResponse.FromString(wire).infer_response
    answer = StreamResponse.parse(wire)
    assert answer.request_id == full.id == "2"
    assert answer.response is not None
    np.testing.assert_array_equal(as_numpy(answer.response.tensors[0]), IMAGE)


# --- the proxy's own queries --------------------------------------------------------------------


def test_an_answer_whose_parts_are_messages_only_together() -> None:
    body = pb.ModelInferResponse(model_name="model", id="id").SerializeToString()
    torn = field(2, body[:3]) + field(2, body[3:])
    with pytest.raises(DecodeError):
        pb.ModelStreamInferResponse.FromString(torn)
    with pytest.raises(InvalidRequest):
        StreamResponse.parse(torn)


def test_built_requests_are_protobufs() -> None:
    parameters = {"priority": 3, "flag": True, "text": "t", "rate": 0.5}
    expected = infer_request(
        {"a": IMAGE, "b": np.zeros((300, 300), np.uint8)},
        model="m",
        version="4",
        request_id="q",
        outputs=["logits"],
        parameters=parameters,
    )
    built = build_infer_request(
        "m",
        "4",
        [
            ("a", "FP32", IMAGE.shape, memoryview(IMAGE.tobytes())),
            ("b", "UINT8", (300, 300), bytes(90_000)),
        ],
        ["logits"],
        request_id="q",
        parameters=parameters,
    )
    assert pb.ModelInferRequest.FromString(built) == expected


def test_the_least_one_can_ask() -> None:
    assert build_infer_request("m", "", []) == field(1, b"m")


def test_a_tag_of_many_bytes_is_not_a_raw_entry() -> None:
    with pytest.raises(InvalidRequest, match="malformed tag"):
        InferRequest.parse(varint(7 << 3 | 2, pad=1) + b"\x01x")
