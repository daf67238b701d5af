"""The fourteen datatypes of the protocol and the three forms their values take.

Raw (little-endian, row-major, unpadded), typed (lists in InferTensorContents) and numpy. Knows
nothing of messages; errors name no tensor, the callers do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.errors import InvalidTensor
from proxy.fields import Buffer, raw_header, split
from proxy.pb import open_inference_pb2 as pb

MAX_RANK = 32
"""Most axes of a tensor: numpy's own bound before 2.0; TensorRT's is 8."""

MAX_STRINGS = 1 << 18
"""Most elements of a BYTES tensor. Their framing is a chain that must be walked one by one, about
0.1 us each, on the event loop."""

INT64_MAX = 2**63 - 1

MAX_ELEMENTS = INT64_MAX // 8
"""Most elements a shape may speak of, also beside an axis of length 0: the bytes of the widest
datatype must fit int64 as well, or neither numpy nor torch make an array of that shape."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Datatype:
    """How elements of one datatype are stored."""

    name: str
    size: int
    """Bytes per element in raw form; 0 for BYTES, whose elements vary."""
    wire: np.dtype[Any]
    """Numpy's word for the raw form. BF16, unknown to numpy, is its 16 bits; BYTES is uint8."""
    field: str
    """Field of InferTensorContents that holds typed values; empty for FP16 and BF16."""


DATATYPES: Mapping[str, Datatype] = MappingProxyType(
    {
        name: Datatype(name, size, np.dtype(wire), field)
        for name, size, wire, field in (
            ("BOOL", 1, "u1", "bool_contents"),
            ("UINT8", 1, "u1", "uint_contents"),
            ("UINT16", 2, "<u2", "uint_contents"),
            ("UINT32", 4, "<u4", "uint_contents"),
            ("UINT64", 8, "<u8", "uint64_contents"),
            ("INT8", 1, "i1", "int_contents"),
            ("INT16", 2, "<i2", "int_contents"),
            ("INT32", 4, "<i4", "int_contents"),
            ("INT64", 8, "<i8", "int64_contents"),
            ("FP16", 2, "<f2", ""),
            ("BF16", 2, "<u2", ""),
            ("FP32", 4, "<f4", "fp32_contents"),
            ("FP64", 8, "<f8", "fp64_contents"),
            ("BYTES", 0, "u1", "bytes_contents"),
        )
    }
)
"""By name, as requests spell it."""

TYPED_FIELDS = tuple(field.name for field in pb.InferTensorContents.DESCRIPTOR.fields)

# Protobuf packs these lists exactly as raw tensors are stored, so (de)serialising the list is the
# conversion: 31 us for 150,528 FP32 values against 5.5 ms element by element.
_PACKED = {
    field.name: field.number
    for field in pb.InferTensorContents.DESCRIPTOR.fields
    if field.name in ("bool_contents", "fp32_contents", "fp64_contents")
}


def element_count(shape: Sequence[int]) -> int:
    """Return the number of elements of a shape; 1 for the empty shape.

    Raises:
        InvalidTensor: a dimension is negative, or the product is over MAX_ELEMENTS (also on the
            way: a later 0 does not mend it, since the server may multiply in any order).
    """
    count, largest = 1, 1
    for size in shape:
        if size < 0:
            raise InvalidTensor(f"dimension {size} of shape {list(shape)} is negative")
        count *= size
        largest *= size or 1
        if largest > MAX_ELEMENTS:
            raise InvalidTensor(f"shape {list(shape)} has too many elements")
    return count


def string_spans(raw: Buffer) -> Iterator[tuple[int, int]]:
    """Yield where the elements of a raw BYTES tensor start and end.

    Each is a 4-byte little-endian length and that many bytes.

    Raises:
        InvalidTensor: a length points past the end, or there are more than MAX_STRINGS.
    """
    position, end, found = 0, len(raw), 0
    while position < end:
        if found == MAX_STRINGS:
            raise InvalidTensor(f"more than {MAX_STRINGS} elements in a BYTES tensor")
        start = position + 4
        if start > end:
            raise InvalidTensor(f"element {found} ends inside its length")
        position = start + _LENGTH.unpack_from(raw, start - 4)[0]
        if position > end:
            raise InvalidTensor(f"element {found} is longer than the data that is left")
        yield start, position
        found += 1


def strings(raw: Buffer) -> list[bytes]:
    """Return the elements of a raw BYTES tensor; raises InvalidTensor as `string_spans`."""
    return [bytes(raw[start:end]) for start, end in string_spans(raw)]


def frame_strings(elements: Sequence[bytes]) -> bytes:
    """Return the raw form of BYTES elements; the inverse of `strings`."""
    return b"".join([part for item in elements for part in (_LENGTH.pack(len(item)), item)])


def raw_from_typed(datatype: Datatype, contents: pb.InferTensorContents) -> bytes:
    """Return typed values in raw form.

    Raises:
        InvalidTensor: a value is outside the datatype's range (the server would wrap it), or the
            datatype has no typed form.
        InvalidRequest: `contents` has an unknown field with the number of the datatype's own.
    """
    if not datatype.field:
        raise InvalidTensor(f"{datatype.name} has no typed form")
    values = getattr(contents, datatype.field)
    if datatype.name == "BYTES":
        return frame_strings(values)
    if datatype.field in _PACKED:
        pieces = split(contents.SerializeToString(), _PACKED[datatype.field])[1]
        return bytes(pieces[0].view) if pieces else b""
    if datatype.field in ("int_contents", "uint_contents"):
        wide = np.fromiter(values, np.int64, len(values))
        narrow = wide.astype(datatype.wire)
        if not np.array_equal(wide, narrow):
            raise InvalidTensor(f"a value is outside the range of {datatype.name}")
        return narrow.tobytes()
    return np.fromiter(values, datatype.wire, len(values)).tobytes()


def typed_from_raw(datatype: Datatype, raw: Buffer, contents: pb.InferTensorContents) -> None:
    """Write raw values into `contents` as typed ones, in place of those there.

    Raises:
        InvalidTensor: BYTES framing is broken, or the datatype has no typed form.
        ValueError: the bytes are not a whole number of elements.
    """
    if not datatype.field:
        raise InvalidTensor(f"{datatype.name} has no typed form")
    contents.ClearField(datatype.field)
    if datatype.name == "BYTES":
        contents.bytes_contents.extend(strings(raw))
        return
    values = np.frombuffer(raw, datatype.wire)
    if datatype.name == "BOOL":
        values = (values != 0).astype(np.uint8)
    if datatype.field in _PACKED:
        packed = values.tobytes()
        contents.MergeFromString(raw_header(_PACKED[datatype.field], packed) + packed)
    else:
        getattr(contents, datatype.field).extend(values.tolist())


def array_from_raw(datatype: Datatype, shape: Sequence[int], raw: Buffer) -> NDArray[Any]:
    """Return raw values as an array of the given shape.

    Numbers are a read-only view of `raw`, at whatever alignment it has. BOOL is bool, BF16 is
    widened to float32 (exact), and BYTES is an object array of `bytes`; these three are copies.

    Raises:
        InvalidTensor: the bytes are not what shape and datatype say.
    """
    count = element_count(shape)
    if datatype.name == "BYTES":
        elements = strings(raw)
        if len(elements) != count:
            raise InvalidTensor(f"{len(elements)} elements for shape {list(shape)}")
        array = np.empty(count, np.object_)
        array[:] = elements
        return array.reshape(shape)
    if len(raw) != count * datatype.size:
        raise InvalidTensor(
            f"{len(raw)} bytes, but shape {list(shape)} of {datatype.name} "
            f"takes {count * datatype.size}"
        )
    values: NDArray[Any] = np.frombuffer(raw, datatype.wire)
    if datatype.name == "BOOL":
        values = values.astype(np.bool_)
    elif datatype.name == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape)
