from __future__ import annotations

import numpy as np
import pytest

from proxy.errors import InvalidRequest
from proxy.fields import INT32_MAX, MAX_FIELDS, RawPiece, raw_header, split
from tests.proxy.strategies import field, varint


def test_head_and_pieces_keep_their_order() -> None:
    parts = [field(1, b"a"), field(7, b"first"), field(2, b"bc"), field(7, b""), field(3, b"d")]
    data = b"".join(parts)
    head, pieces, _ = split(data, 7)
    assert head == parts[0] + parts[2] + parts[4]
    assert pieces == [
        RawPiece(memoryview(b"first"), 3, 5, 10),
        RawPiece(memoryview(b""), 14, 16, 16),
    ]


def test_pieces_are_views_of_the_message() -> None:
    data = field(7, b"payload")
    _, [piece], _ = split(data, 7)
    assert piece.view.obj is data


@pytest.mark.parametrize("kind", [bytes, memoryview])
@pytest.mark.parametrize("data", [b"", field(1, b"a") + varint(8 << 3) + b"\x05"])
def test_a_message_without_pieces_is_all_head(data: bytes, kind) -> None:
    head, pieces, _ = split(kind(data), 7)
    assert type(head) is bytes
    assert (head, pieces) == (data, [])


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_152])
@pytest.mark.parametrize("number", [1, 15])
def test_header_is_what_split_reads(size: int, number: int) -> None:
    payload = bytes(size)
    header = raw_header(number, payload)
    assert header == varint(number << 3 | 2) + varint(size)
    words = memoryview(payload[size % 4 :]).cast("i")
    assert raw_header(number, payload[: size % 4], words) == header
    _, [piece], _ = split(raw_header(number, payload) + payload, number)
    assert piece.end - piece.start == size


@pytest.mark.parametrize(
    "data",
    [
        field(16, b"x"),
        field(2**29 - 1, b"x"),
        field(1, b"x", pad=4),
        varint(9 << 3) + b"\xff" * 9 + b"\x01",
        varint(9 << 3 | 1) + b"8 bytes.",
        varint(9 << 3 | 5) + b"4by.",
    ],
    ids=["two-byte tag", "largest tag", "padded length", "longest varint", "fixed64", "fixed32"],
)
def test_unusual_fields_go_to_the_head(data: bytes) -> None:
    assert split(data + field(7, b"p"), 7)[0] == data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x0a", "ends inside a field"),
        (b"\x0a\x05abcd", "ends inside a field"),
        (b"\x0a\x80", "ends inside a field"),
        (b"\x8a", "ends inside a field"),
        (varint(9 << 3 | 1) + b"7 bytes", "ends inside a field"),
        (varint(9 << 3 | 5) + b"3by", "ends inside a field"),
        (varint(9 << 3), "ends inside a field"),
        (varint(9 << 3) + b"\x80", "ends inside a field"),
        (b"\x0a" + varint(2**32), "malformed length|ends inside"),
        (b"\x0a" + varint(1, pad=5) + b"x", "malformed length"),
        (varint(9 << 3) + b"\xff" * 10 + b"\x01", "malformed varint"),
        (b"\x8a\x00\x01x", "malformed tag"),
        (b"\xba\x00\x01x", "malformed tag"),
        (b"\x82\x80\x80\x80\x10\x00", "malformed tag"),
        (b"\x82\x80\x80\x80\x80\x01\x00", "malformed tag"),
        (b"\x02\x01x", "field number 0"),
        (b"\x00\x01", "field number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x0f", "wire type 7"),
        (b"\x38\x01", "field 7 has wire type 0"),
        (b"\x39" + bytes(8), "field 7 has wire type 1"),
        (b"\x3d" + bytes(4), "field 7 has wire type 5"),
        (b"\x3b\x3c", "field 7 has wire type 3"),
        (b"\x0a\x00" * (MAX_FIELDS + 1), "more than 4096 fields"),
    ],
)
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_refused(data: bytes, text: str, kind) -> None:
    with pytest.raises(InvalidRequest, match=text):
        split(kind(data), 7)


def test_as_many_fields_as_allowed() -> None:
    assert split(b"\x0a\x00" * MAX_FIELDS, 7)[1] == []


def test_larger_than_protobuf_reads() -> None:
    untouched = memoryview(np.empty(INT32_MAX + 1, np.uint8))  # reserved, never paged in
    with pytest.raises(InvalidRequest, match="larger than 2147483647"):
        split(untouched, 7)
