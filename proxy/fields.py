"""The top-level fields of a protobuf message, walked without parsing what is inside them.

Only canonical, ungrouped encodings are taken: what two protobuf implementations might read in two
ways is refused here.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.errors import InvalidRequest

Buffer = bytes | memoryview

MAX_FIELDS = 4096
"""Most top-level fields (inputs, outputs, parameters, raw tensors) of a message. A field can take
2 bytes, so a message of the permitted size could otherwise hold the event loop for a minute."""

INT32_MAX = 2**31 - 1

_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5


class RawPiece(NamedTuple):
    """One raw entry of a message: where its tag and its payload lie."""

    view: memoryview
    tag_start: int
    start: int
    end: int


class Pieces(NamedTuple):
    """A message taken apart."""

    head: bytes
    """All fields but those set apart, concatenated in wire order."""
    raw: list[RawPiece]
    """The entries of the repeated bytes field."""
    single: list[memoryview]
    """The payloads of the single field set apart: none or one, and when a message has several the
    last counts."""


def split(data: Buffer, raw_field: int, single_field: int = 0) -> Pieces:
    """Set apart the entries of one repeated bytes field, and one single string field if asked to.

    Both are views of `data`.

    Raises:
        InvalidRequest: the message is cut short, or has groups, field number 0, a tag longer than
            it need be, `raw_field` with another wire type, or more than MAX_FIELDS fields.
    """
    end = len(data)
    if end > INT32_MAX:
        raise InvalidRequest("the message is larger than 2147483647 bytes")
    view = memoryview(data)
    raw_tag, single_tag = raw_field << 3 | _LEN, single_field << 3 | _LEN
    single: list[memoryview] = []
    heads: list[memoryview] = []
    pieces: list[RawPiece] = []
    head_start = position = 0
    try:
        for _ in range(MAX_FIELDS):
            if position == end:
                break
            tag_start = position
            tag = data[position]
            position += 1
            if tag > 0x7F:
                tag, position = _long_tag(data, tag_start)
            if tag & 7 != _LEN or tag < 8:
                position = _skip(data, position, tag, (raw_field, single_field))
                if position > end:
                    raise InvalidRequest("the message ends inside a field")
                continue
            length = data[position]
            position += 1
            if length > 0x7F:
                length, position = _long_length(data, position - 1)
            start = position
            position += length
            if position > end:
                raise InvalidRequest("the message ends inside a field")
            if tag == raw_tag:
                pieces.append(RawPiece(view[start:position], tag_start, start, position))
            elif tag == single_tag:
                single.append(view[start:position])
            else:
                continue
            heads.append(view[head_start:tag_start])
            head_start = position
    except IndexError:
        raise InvalidRequest("the message ends inside a field") from None
    if position != end:
        raise InvalidRequest(f"the message has more than {MAX_FIELDS} fields")
    if not heads:
        return Pieces(bytes(data), pieces, single)
    heads.append(view[head_start:])
    return Pieces(b"".join(heads), pieces, single)


def _long_tag(data: Buffer, position: int) -> tuple[int, int]:
    """Return the tag of several bytes at `position`, and where it ends."""
    tag = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        tag |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 or tag >> 32:
                break
            return tag, position
    raise InvalidRequest("the message has a malformed tag")


def _long_length(data: Buffer, position: int) -> tuple[int, int]:
    """Return the length of several bytes at `position`, and where it ends.

    Padded lengths are legal (writers that reserve room for a length produce them), up to the five
    bytes that every protobuf implementation reads.
    """
    length = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return length, position
    raise InvalidRequest("the message has a malformed length")


def _skip(data: Buffer, position: int, tag: int, apart: tuple[int, int]) -> int:
    """Return where the scalar field ends whose value begins at `position`."""
    number, wire_type = tag >> 3, tag & 7
    if number == 0:
        raise InvalidRequest("the message has a field number 0")
    if number in apart:
        raise InvalidRequest(f"field {number} has wire type {wire_type}")
    if wire_type == _FIXED64:
        return position + 8
    if wire_type == _FIXED32:
        return position + 4
    if wire_type != _VARINT:
        raise InvalidRequest(f"field {number} has unsupported wire type {wire_type}")
    for last in range(position, position + 10):
        if data[last] < 0x80:
            return last + 1
    raise InvalidRequest("the message has a malformed varint")


def raw_header(field: int, *parts: Buffer) -> bytes:
    """Return the tag and length that precede a payload, which may come in parts."""
    header = bytearray((field << 3 | _LEN,))
    length = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return bytes(header)
