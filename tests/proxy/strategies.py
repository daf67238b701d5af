"""Hypothesis strategies for wire messages: well-formed, well-formed but unusual, and damaged."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from proxy.pb import open_inference_pb2 as pb
from tests.builders import framed

SIZES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
    "BYTES": 0,
}
CODES = {
    "BOOL": ("?", "bool_contents"),
    "UINT8": ("B", "uint_contents"),
    "UINT16": ("H", "uint_contents"),
    "UINT32": ("I", "uint_contents"),
    "UINT64": ("Q", "uint64_contents"),
    "INT8": ("b", "int_contents"),
    "INT16": ("h", "int_contents"),
    "INT32": ("i", "int_contents"),
    "INT64": ("q", "int64_contents"),
    "FP32": ("f", "fp32_contents"),
    "FP64": ("d", "fp64_contents"),
}
TYPED = (*CODES, "BYTES")
FLOATS = {"FP16": "e", "FP32": "f", "FP64": "d"}

names = st.text("abcXYZ_0189", min_size=1, max_size=6)
shapes = st.lists(st.integers(0, 4), max_size=3)


def varint(value: int, pad: int = 0) -> bytes:
    """A varint, made longer than it need be by `pad` bytes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(pad):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def field(number: int, payload: bytes, pad: int = 0) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload), pad) + payload


@st.composite
def unknown_fields(draw: st.DrawFn, lowest: int) -> bytes:
    """A field no message of the protocol has, of any wire type that is not a group."""
    number = draw(st.integers(lowest, lowest + 40) | st.just(2**29 - 1))
    wire_type = draw(st.sampled_from([0, 1, 2, 5]))
    if wire_type == 2:
        return field(number, draw(st.binary(max_size=9)))
    value = {0: varint(draw(st.integers(0, 2**64 - 1))), 1: b"8 bytes.", 5: b"4by."}[wire_type]
    return varint(number << 3 | wire_type) + value


@st.composite
def payloads(draw: st.DrawFn, datatype: str, count: int) -> bytes:
    """Raw values: any bits for numbers, except that floats are finite and bools are 0 or 1."""
    if datatype == "BYTES":
        return framed(draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count)))
    if datatype == "BOOL":
        return bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    if datatype in FLOATS:
        width = SIZES[datatype] * 8
        value = st.floats(width=width, allow_nan=False, allow_infinity=False)
        values = draw(st.lists(value, min_size=count, max_size=count))
        return struct.pack(f"<{count}{FLOATS[datatype]}", *values)
    raw = draw(st.binary(min_size=count * SIZES[datatype], max_size=count * SIZES[datatype]))
    if datatype == "BF16":  # clear an exponent bit, so that none is NaN or infinite
        raw = bytes(byte & 0xBF if i % 2 else byte for i, byte in enumerate(raw))
    return raw


def elements(raw: bytes) -> list[bytes]:
    """The elements of a raw BYTES tensor, for tests that know it is well-formed."""
    found, position = [], 0
    while position < len(raw):
        size = int.from_bytes(raw[position : position + 4], "little")
        found.append(raw[position + 4 : position + 4 + size])
        position += 4 + size
    return found


def set_typed(contents: pb.InferTensorContents, datatype: str, raw: bytes) -> None:
    """Write raw values as typed ones, one at a time."""
    if datatype == "BYTES":
        del contents.bytes_contents[:]
        contents.bytes_contents.extend(elements(raw))
        return
    code, name = CODES[datatype]
    values = struct.unpack(f"<{len(raw) // SIZES[datatype]}{code}", raw)
    contents.ClearField(name)
    getattr(contents, name).extend(values)
    contents.SetInParent()


def product(shape: list[int] | tuple[int, ...]) -> int:
    """Number of elements."""
    count = 1
    for size in shape:
        count *= size
    return count


def set_parameter(draw: st.DrawFn, parameter: pb.InferParameter) -> None:
    """Give a custom parameter a value of a type the server takes."""
    kind = draw(st.sampled_from(["bool", "int64", "string", "double"]))
    values: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "int64": st.integers(-(2**63), 2**63 - 1),
        "string": st.text(max_size=4),
        "double": st.floats(allow_nan=False),
    }
    setattr(parameter, f"{kind}_param", draw(values[kind]))


@st.composite
def messages(draw: st.DrawFn, kinds: tuple[str, ...] = ("raw", "typed")) -> pb.ModelInferRequest:
    """A well-formed request: raw or typed, some inputs in shared memory."""
    request = pb.ModelInferRequest(
        model_name=draw(names),
        model_version=draw(st.sampled_from(["", "1", "27"])),
        id=draw(st.text(max_size=3)),
    )
    for key in draw(st.lists(names, max_size=2)):
        set_parameter(draw, request.parameters["my_" + key])
    kind = draw(st.sampled_from(kinds))
    for name in draw(st.lists(names, max_size=4, unique=True)):
        datatype = draw(st.sampled_from(TYPED if kind == "typed" else tuple(SIZES)))
        shape = draw(shapes)
        item = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if draw(st.integers(0, 3)) == 0:
            item.parameters["shared_memory_region"].string_param = "region"
            size = product(shape) * SIZES[datatype]
            item.parameters["shared_memory_byte_size"].int64_param = size
            if draw(st.booleans()):
                item.parameters["shared_memory_offset"].int64_param = 4
            continue
        raw = draw(payloads(datatype, product(shape)))
        if kind == "raw":
            request.raw_input_contents.append(raw)
        else:
            item.contents.SetInParent()
            set_typed(item.contents, datatype, raw)
    for name in draw(st.lists(names, max_size=2)):
        request.outputs.add(name=name)
    return request


@st.composite
def nested(draw: st.DrawFn, message: pb.ModelInferRequest.InferInputTensor) -> bytes:
    """An input as an unusual writer might put it: shape unpacked, unknown fields."""
    if not draw(st.booleans()):
        return message.SerializeToString()
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField("shape")
    head = b"".join(varint(3 << 3) + varint(size) for size in message.shape)
    contents = b""
    if rest.HasField("contents") and draw(st.booleans()):
        contents = field(5, draw(unknown_fields(20)))  # merged with the contents before it
    return head + rest.SerializeToString() + contents + draw(unknown_fields(9))


@st.composite
def unusual(draw: st.DrawFn, message: pb.ModelInferRequest) -> bytes:
    """The message as bytes: fields in any order, doubled, with unknown ones and padded lengths.

    The order among inputs and among raw entries is kept, since it carries meaning.
    """

    def pad() -> int:
        return draw(st.sampled_from([0, 0, 0, 1, 2]))

    scalars = pb.ModelInferRequest()
    scalars.CopyFrom(message)
    for name in ("inputs", "outputs", "raw_input_contents", "model_name"):
        scalars.ClearField(name)
    lanes = [
        [field(5, draw(nested(item)), pad()) for item in message.inputs],
        [field(6, item.SerializeToString(), pad()) for item in message.outputs],
        [field(7, item, pad()) for item in message.raw_input_contents],
        [field(1, b"not this one"), field(1, message.model_name.encode(), pad())],
        [scalars.SerializeToString()],
        draw(st.lists(unknown_fields(8), max_size=2)),
    ]
    order = [lane for lane, items in enumerate(lanes) for _ in items]
    if draw(st.booleans()):
        order = draw(st.permutations(order))
    iterators = [iter(items) for items in lanes]
    return b"".join(next(iterators[lane]) for lane in order)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request cut short, with bytes changed, inserted or doubled, or nothing like a request."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=40))
    data = bytearray(draw(unusual(draw(messages()))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "set", "insert", "double", "drop"])):
            case "cut":
                del data[at:]
            case "set" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "insert":
                data[at:at] = draw(st.binary(max_size=4))
            case "double":
                data[at:at] = data[at : at + 12]
            case _:
                del data[at : at + 1]
    return bytes(data)
