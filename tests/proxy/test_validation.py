from __future__ import annotations

import struct
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from proxy.datatypes import DATATYPES, INT64_MAX, MAX_STRINGS
from proxy.errors import InvalidRequest, InvalidTensor
from proxy.pb import open_inference_pb2 as pb
from proxy.rpc import RPCS
from proxy.validation import is_finite, validate, validate_model
from proxy.wire import InferRequest, as_numpy
from tests.builders import framed, infer_request
from tests.proxy.strategies import (
    CODES,
    FLOATS,
    TYPED,
    damaged,
    messages,
    payloads,
    set_typed,
    unusual,
)
from tuning.triton import EmbeddedTriton

IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
Edit = Callable[[pb.ModelInferRequest], None]


def check(message: pb.ModelInferRequest, non_finite: str = "refuse") -> None:
    validate(InferRequest.parse(message.SerializeToString()), non_finite=non_finite)


def valid() -> pb.ModelInferRequest:
    """A raw image, raw strings, an input in shared memory, two requested outputs."""
    message = infer_request(
        {"image": IMAGE, "words": np.array([b"a", b""], np.object_)},
        model="m",
        version="1",
        outputs=["logits", "top"],
    )
    shared(message, "shared")
    return message


def shared(message: pb.ModelInferRequest, name: str) -> pb.ModelInferRequest.InferInputTensor:
    item = message.inputs.add(name=name, datatype="INT16", shape=[2, 2])
    item.parameters["shared_memory_region"].string_param = "region"
    item.parameters["shared_memory_byte_size"].int64_param = 8
    return item


def typed(datatype: str, shape: list[int], **contents: list) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(
        name="x", datatype=datatype, shape=shape, contents=pb.InferTensorContents(**contents)
    )
    return message


def raw(datatype: str, shape: list[int], payload: bytes) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[payload])
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    return message


def test_a_valid_request() -> None:
    check(valid())


@given(st.data())
def test_every_well_formed_request_is_valid(data: st.DataObject) -> None:
    wire = data.draw(unusual(data.draw(messages())))
    validate(InferRequest.parse(wire), non_finite="refuse")


@given(damaged(), st.sampled_from(["refuse", "pass"]))
def test_damaged_requests_raise_nothing_else_and_valid_ones_are_arrays(
    wire: bytes, non_finite: str
) -> None:
    try:
        request = InferRequest.parse(wire)
        validate(request, non_finite=non_finite)
    except InvalidRequest:
        event("refused")
        return
    event("valid")
    for tensor in request.tensors:
        if tensor.shared_memory is None:
            assert as_numpy(tensor).shape == tensor.shape


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m", "resnet50.v1-5_b", "_hidden", "9", "x" * 255, "a.b"])
@pytest.mark.parametrize("version", ["", "1", "007", str(INT64_MAX)])
def test_model_names_and_versions(name: str, version: str) -> None:
    validate_model(name, version)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a..b", ".git", "-rf", "a/b", "a\\b", "a b", "é", "a\n", "a\0", "x" * 256],
)
def test_refused_model_names(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"model name .* is not one"):
        check(infer_request({}, model=name))


@pytest.mark.parametrize(
    "version", ["-1", "+1", " 1", "1a", "1\n", "٣", str(INT64_MAX + 1), "0" * 20]
)
def test_refused_model_versions(version: str) -> None:
    with pytest.raises(InvalidRequest, match=r"model version .* is not a number"):
        check(infer_request({}, version=version))


# --- request parameters -------------------------------------------------------------------------


TAKEN = [
    ("sequence_id", "int64", 7),
    ("sequence_id", "string", "seven"),
    ("sequence_start", "bool", True),
    ("sequence_end", "bool", False),
    ("priority", "int64", 0),
    ("priority", "uint64", 2**64 - 1),
    ("timeout", "int64", 1000),
    ("triton_enable_empty_final_response", "bool", True),
    ("custom", "bool", True),
    ("custom", "int64", -1),
    ("custom", "string", ""),
    ("custom", "double", 0.5),
]


@pytest.mark.parametrize(("key", "field", "value"), TAKEN)
def test_parameters_triton_takes(key: str, field: str, value: object) -> None:
    message = valid()
    setattr(message.parameters[key], f"{field}_param", value)
    check(message)


REFUSED = [
    ("sequence_id", "uint64", 7, "must be int64_param or string_param, not uint64_param"),
    ("sequence_id", "bool", True, "'sequence_id' must be"),
    ("sequence_start", "int64", 1, "must be bool_param, not int64_param"),
    ("sequence_end", "string", "true", "'sequence_end' must be bool_param"),
    ("priority", "int64", -1, "'priority' is negative"),
    ("priority", "double", 1.0, "'priority' must be"),
    ("timeout", "uint64", 1, "'timeout' must be int64_param"),
    ("triton_enable_empty_final_response", "int64", 1, "must be bool_param"),
    ("triton_anything", "bool", True, "reserved prefix"),
    ("triton_", "string", "", "reserved prefix"),
    ("custom", "uint64", 1, "'custom' must be .*, not uint64_param"),
]


@pytest.mark.parametrize(("key", "field", "value", "text"), REFUSED)
def test_parameters_triton_refuses(key: str, field: str, value: object, text: str) -> None:
    message = valid()
    setattr(message.parameters[key], f"{field}_param", value)
    with pytest.raises(InvalidRequest, match=text):
        check(message)


@pytest.mark.triton
def test_triton_ends_names_at_a_nul(triton: EmbeddedTriton) -> None:
    """A name that nobody inspects would be the inspected one to the server."""
    message = pb.ModelInferRequest(model_name="all_types", raw_input_contents=[bytes(4)])
    message.inputs.add(name="IN_FP32\0x", datatype="FP32", shape=[1])
    assert status(triton, message) is grpc.StatusCode.OK
    with pytest.raises(InvalidRequest, match="NUL"):
        check(message)


@pytest.mark.parametrize("where", ["inputs", "outputs", "parameters", "id"])
def test_nul_in_names(where: str) -> None:
    message = valid()
    if where == "id":
        message.id = "a\0b"
    elif where == "parameters":
        message.parameters["a\0b"].bool_param = True
    elif where == "outputs":
        message.outputs.add(name="a\0b")
    else:
        message.inputs[0].name = "a\0b"
    with pytest.raises(InvalidRequest, match="NUL"):
        check(message)


@pytest.mark.parametrize("key", ["custom", "sequence_id"])
def test_parameters_without_a_value(key: str) -> None:
    message = valid()
    message.parameters[key].SetInParent()
    with pytest.raises(InvalidRequest, match=f"'{key}' must be .*, not unset"):
        check(message)


# --- which bytes belong to which input ----------------------------------------------------------


def _typed_too(m: pb.ModelInferRequest) -> None:
    m.inputs[0].contents.fp32_contents.extend(IMAGE.ravel())


def _rename(m: pb.ModelInferRequest, name: str) -> None:
    m.inputs[1].name = name


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (_typed_too, "input 'image' has typed contents beside raw_input_contents"),
        (lambda m: m.raw_input_contents.append(b""), "3 raw_input_contents for 2 inputs"),
        (lambda m: m.raw_input_contents.pop(), "1 raw_input_contents for 2 inputs"),
        (lambda m: m.ClearField("raw_input_contents"), "input 'image': has no data"),
        (lambda m: m.ClearField("inputs"), "2 raw_input_contents for 0 inputs"),
        (lambda m: _rename(m, "image"), "input 1 'image' comes twice"),
        (lambda m: _rename(m, ""), "input 1 '' has no name"),
    ],
)
def test_misaligned(edit: Edit, text: str) -> None:
    message = valid()
    edit(message)
    with pytest.raises(InvalidRequest, match=text):
        check(message)


# --- sizes --------------------------------------------------------------------------------------


CONTRADICTIONS = [
    (raw("FP32", [3], bytes(11)), r"11 bytes, but shape \[3\] of FP32 takes 12"),
    (raw("FP32", [3], bytes(13)), "13 bytes"),
    (raw("FP32", [], bytes(8)), "8 bytes"),
    (raw("FP32", [0], bytes(4)), "4 bytes"),
    (raw("INT8", [-1], b""), "dimension -1 of shape .* is negative"),
    (raw("INT8", [-2, -2], bytes(4)), "negative"),
    (raw("UINT8", [2**32, 2**32], b""), "too many elements"),
    (raw("FP8", [1], b"1"), "unknown datatype 'FP8'"),
    (raw("fp32", [1], b"1234"), "unknown datatype 'fp32'"),
    (raw("", [1], b"1234"), "unknown datatype ''"),
    (raw("BYTES", [2], framed([b"a"])), r"1 elements for shape \[2\]"),
    (raw("BYTES", [1], framed([b"a", b"b"])), r"2 elements for shape \[1\]"),
    (raw("BYTES", [1], b"\x09\x00\x00\x00a"), "element 0 is longer"),
    (raw("BYTES", [1], b"\x09"), "element 0 ends inside"),
    (raw("BYTES", [MAX_STRINGS + 1], b""), "262145 elements, more than 262144"),
    (typed("FP32", [2], fp32_contents=[1]), "1 typed values where the shape has 2"),
    (typed("FP32", [], fp32_contents=[1, 2]), "2 typed values where the shape has 1"),
    (typed("FP32", [1], fp64_contents=[1]), "belong in fp32_contents, not fp64_contents"),
    (typed("INT64", [1], int_contents=[1]), "belong in int64_contents, not int_contents"),
    (
        typed("FP32", [1], fp32_contents=[1], bool_contents=[True]),
        "belong in fp32_contents, not bool_contents",
    ),
    (typed("FP16", [1], fp32_contents=[1]), "FP16 has no typed form"),
    (typed("BF16", [0]), "BF16 has no typed form"),
    (typed("INT8", [1], int_contents=[128]), "outside the range of INT8"),
    (typed("UINT16", [1], uint_contents=[2**16]), "outside the range of UINT16"),
    (typed("BYTES", [2], bytes_contents=[b"a"]), "1 typed values"),
]


@pytest.mark.parametrize(("message", "text"), CONTRADICTIONS)
def test_data_that_contradicts_its_declaration(message: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(InvalidTensor, match=f"input 'x': .*{text}"):
        check(message)


def test_a_size_that_wraps_to_nothing() -> None:
    # 2**61 elements of 8 bytes are 0 bytes modulo 2**64. Triton 2.51 takes this request and its
    # Python backend dies of it, so it is not among those shown to the real server below.
    with pytest.raises(InvalidTensor, match="too many elements"):
        check(raw("FP64", [2**61], b""))


@pytest.mark.parametrize(
    "message",
    [
        raw("FP32", [], bytes(4)),
        raw("FP32", [0, 5], b""),
        raw("BYTES", [0], b""),
        raw("BYTES", [], framed([b"\xff\xd8 a picture"])),
        raw("BOOL", [3], b"\x00\x01\x07"),
        typed("FP32", [0]),
        typed("INT8", [2], int_contents=[-128, 127]),
        typed("UINT8", [2], uint_contents=[0, 255]),
        typed("BYTES", [1], bytes_contents=[b"a"]),
        typed("BOOL", [2], bool_contents=[True, False]),
    ],
)
def test_data_that_fits(message: pb.ModelInferRequest) -> None:
    check(message)


@pytest.mark.parametrize("name", CODES)
def test_values_of_one_type_for_another(name: str) -> None:
    message = typed("BYTES" if name != "BYTES" else "FP32", [1])
    set_typed(message.inputs[0].contents, name, bytes(DATATYPES[name].size))
    with pytest.raises(InvalidTensor, match="input 'x': BYTES values belong in bytes_contents"):
        check(message)


# --- NaN and infinities -------------------------------------------------------------------------

BAD = [np.nan, np.inf, -np.inf]


def float_payload(datatype: str, values: np.ndarray) -> bytes:
    if datatype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(f"<{FLOATS[datatype]}").tobytes()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("position", [0, 500, 999])
def test_one_bad_value_anywhere(datatype: str, bad: float, position: int) -> None:
    values = np.linspace(-3e4, 3e4, 1000)
    assert is_finite(DATATYPES[datatype], float_payload(datatype, values))
    values[position] = bad
    message = raw(datatype, [1000], float_payload(datatype, values))
    with pytest.raises(InvalidTensor, match="input 'x': has a value that is NaN or infinite"):
        check(message)
    check(message, "pass")


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("datatype", "field"), [("FP32", "fp32"), ("FP64", "fp64")])
def test_bad_values_in_typed_contents(datatype: str, field: str, bad: float) -> None:
    message = typed(datatype, [2], **{f"{field}_contents": [1.0, bad]})
    with pytest.raises(InvalidTensor, match="NaN or infinite"):
        check(message)
    check(message, "pass")


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_largest_and_smallest_finite_values_at_any_alignment(datatype: str, offset: int) -> None:
    edges = {
        "FP16": [0x7BFF, 0xFBFF, 1],
        "BF16": [0x7F7F, 0xFF7F, 1],
        "FP32": [0x7F7FFFFF, 0xFF7FFFFF, 1],
        "FP64": [0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF, 1],
    }[datatype]
    size = DATATYPES[datatype].size
    payload = bytes(offset) + b"".join(bits.to_bytes(size, "little") for bits in edges)
    assert is_finite(DATATYPES[datatype], memoryview(payload)[offset:])
    infinity = payload + (edges[0] + 1).to_bytes(size, "little")
    assert not is_finite(DATATYPES[datatype], memoryview(infinity)[offset:])


@given(st.sampled_from(["FP16", "FP32", "FP64"]), st.binary(max_size=64))
def test_finite_as_numpy_says(datatype: str, payload: bytes) -> None:
    size = DATATYPES[datatype].size
    payload = payload[: len(payload) // size * size]
    expected = np.isfinite(np.frombuffer(payload, f"<{FLOATS[datatype]}")).all()
    assert is_finite(DATATYPES[datatype], payload) == expected


def test_bits_of_a_nan_are_an_ordinary_integer() -> None:
    check(raw("INT32", [1], struct.pack("<f", np.nan)))
    check(raw("BYTES", [1], framed([struct.pack("<f", np.inf)])))


# --- shared memory ------------------------------------------------------------------------------


def _parameter(key: str, field: str, value: object) -> Edit:
    def edit(message: pb.ModelInferRequest) -> None:
        for item in (message.inputs[2], message.outputs[0]):
            setattr(item.parameters[f"shared_memory_{key}"], f"{field}_param", value)

    return edit


def _without(key: str) -> Edit:
    def edit(message: pb.ModelInferRequest) -> None:
        for item in (message.inputs[2], message.outputs[0]):
            del item.parameters[f"shared_memory_{key}"]

    return edit


def with_shared_output() -> pb.ModelInferRequest:
    message = valid()
    parameters = message.outputs[0].parameters
    parameters["shared_memory_region"].string_param = "region"
    parameters["shared_memory_byte_size"].int64_param = 8
    return message


@pytest.mark.parametrize("offset", [0, 4096, INT64_MAX - 8])
def test_shared_memory_in_and_out(offset: int) -> None:
    message = with_shared_output()
    _parameter("offset", "int64", offset)(message)
    check(message)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (_parameter("region", "int64", 1), "shared_memory_region must be a region's name"),
        (_parameter("region", "string", ""), "shared_memory_region must be a region's name"),
        (
            _parameter("region", "string", "triton_python_backend_shm_region_0"),
            "a region of the server's own",
        ),
        (_without("byte_size"), "shared_memory_byte_size is missing"),
        (_without("region"), "parameters without shared_memory_region"),
        (_parameter("byte_size", "uint64", 8), "byte_size must be an int64 of at least 0"),
        (_parameter("byte_size", "int64", -8), "byte_size must be an int64 of at least 0"),
        (_parameter("offset", "string", "0"), "offset must be an int64 of at least 0"),
        (_parameter("offset", "int64", -1), "offset must be an int64 of at least 0"),
        (_parameter("offset", "int64", INT64_MAX - 7), "ends past the largest int64"),
    ],
)
@pytest.mark.parametrize("where", ["input 'shared'", "requested output 'logits'"])
def test_shared_memory_parameters(edit: Edit, text: str, where: str) -> None:
    message = with_shared_output()
    edit(message)
    if "region" in text and "without" in text:  # then the first input has no raw entry either
        message.raw_input_contents.append(bytes(8))
    if where.startswith("requested"):
        message.inputs[2].CopyFrom(valid().inputs[2])
        del message.raw_input_contents[2:]
    with pytest.raises(InvalidTensor, match=f"{where}: .*{text}"):
        check(message)


def test_shared_memory_of_another_size_than_the_shape() -> None:
    message = valid()
    message.inputs[2].parameters["shared_memory_byte_size"].int64_param = 9
    with pytest.raises(InvalidTensor, match="input 'shared': 9 bytes, but shape"):
        check(message)


def test_strings_in_shared_memory_may_have_any_size() -> None:
    message = valid()
    message.inputs[2].datatype = "BYTES"
    check(message)


def test_shared_memory_and_contents() -> None:
    message = pb.ModelInferRequest(model_name="m")
    shared(message, "s").contents.SetInParent()
    with pytest.raises(InvalidTensor, match="input 's': has contents although"):
        check(message)


def test_other_parameters_of_inputs_and_outputs_pass() -> None:
    message = valid()
    message.inputs[0].parameters["binary_data_size"].uint64_param = 48
    message.outputs[0].parameters["custom"].uint64_param = 1
    check(message)


@pytest.mark.parametrize("count", [1, 5])
def test_classification(count: int) -> None:
    message = valid()
    message.outputs[1].parameters["classification"].int64_param = count
    check(message)


@pytest.mark.parametrize(
    ("field", "value"), [("int64", 0), ("int64", -1), ("string", "5"), ("uint64", 5)]
)
def test_classification_of_the_wrong_kind(field: str, value: object) -> None:
    message = valid()
    setattr(message.outputs[1].parameters["classification"], f"{field}_param", value)
    with pytest.raises(InvalidTensor, match="requested output 'top': classification must be"):
        check(message)


def test_classification_to_shared_memory() -> None:
    message = with_shared_output()
    message.outputs[0].parameters["classification"].int64_param = 1
    with pytest.raises(InvalidTensor, match="classification cannot go to shared memory"):
        check(message)


@given(st.data(), st.sampled_from(TYPED))
def test_typed_payloads_of_every_datatype(data: st.DataObject, name: str) -> None:
    count = data.draw(st.integers(0, 5))
    message = typed(name, [count])
    set_typed(message.inputs[0].contents, name, data.draw(payloads(name, count)))
    check(message)


# --- as the real server takes them --------------------------------------------------------------


def status(triton: EmbeddedTriton, message: pb.ModelInferRequest) -> grpc.StatusCode:
    with grpc.insecure_channel(triton.grpc_address) as channel:
        call = channel.unary_unary(RPCS["ModelInfer"].path)
        try:
            call(message.SerializeToString(), timeout=30)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.mark.triton
@pytest.mark.parametrize(
    ("key", "field", "value", "code"),
    [
        *((*row, grpc.StatusCode.OK) for row in TAKEN),
        *((*row[:3], grpc.StatusCode.INVALID_ARGUMENT) for row in REFUSED),
    ],
)
def test_triton_agrees_on_parameters(
    triton: EmbeddedTriton, key: str, field: str, value: object, code: grpc.StatusCode
) -> None:
    message = infer_request({"IN_FP32": IMAGE.ravel()}, model="all_types")
    setattr(message.parameters[key], f"{field}_param", value)
    assert status(triton, message) == code


@pytest.mark.triton
@pytest.mark.parametrize(("message", "text"), CONTRADICTIONS)
def test_triton_agrees_on_contradictions(
    triton: EmbeddedTriton, message: pb.ModelInferRequest, text: str
) -> None:
    theirs = pb.ModelInferRequest()
    theirs.CopyFrom(message)
    theirs.model_name = "all_types"
    datatype = theirs.inputs[0].datatype
    theirs.inputs[0].name = f"IN_{datatype if datatype in DATATYPES else 'FP32'}"
    wraps = "outside the range" in text  # Triton keeps the low bits, so nobody saw what it reads
    expected = grpc.StatusCode.OK if wraps else grpc.StatusCode.INVALID_ARGUMENT
    assert status(triton, theirs) == expected
