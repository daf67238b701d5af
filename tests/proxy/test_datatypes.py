from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bf16_tensor, serialize_bf16_tensor

from proxy.datatypes import (
    DATATYPES,
    MAX_ELEMENTS,
    MAX_STRINGS,
    TYPED_FIELDS,
    array_from_raw,
    element_count,
    frame_strings,
    raw_from_typed,
    string_spans,
    strings,
    typed_from_raw,
)
from proxy.errors import InvalidRequest, InvalidTensor
from proxy.pb import open_inference_pb2 as pb
from tests.builders import DATATYPE_OF, framed
from tests.proxy.strategies import CODES, SIZES, TYPED, field, payloads, set_typed, varint


def test_fourteen_datatypes_with_their_sizes() -> None:
    assert {name: datatype.size for name, datatype in DATATYPES.items()} == SIZES
    assert len(DATATYPES) == 14


def test_typed_fields_are_those_of_the_message() -> None:
    assert {DATATYPES[name].field for name in TYPED} == set(TYPED_FIELDS)
    assert {name: DATATYPES[name].field for name in CODES} == {n: f for n, (_, f) in CODES.items()}
    assert DATATYPES["FP16"].field == DATATYPES["BF16"].field == ""


@pytest.mark.parametrize(
    ("shape", "count"),
    [((), 1), ((0,), 0), ((3, 0, 2), 0), ((2, 3, 4), 24), ((MAX_ELEMENTS,), MAX_ELEMENTS)],
)
def test_element_count(shape: tuple[int, ...], count: int) -> None:
    assert element_count(shape) == count


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((-1,), "dimension -1 .* negative"),
        ((0, -1), "negative"),
        ((2**62, 2), "too many"),
        ((2**32, 2**32), "too many"),
        ((0, 2**62, 2), "too many"),
        ((0, 2**61), "too many"),
        ((2**62, 2, 0), "too many"),
    ],
)
def test_impossible_shapes(shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(InvalidTensor, match=text):
        element_count(shape)


@given(st.lists(st.binary(max_size=300)))
def test_strings_inverts_framing(items: list[bytes]) -> None:
    assert frame_strings(items) == framed(items)
    assert strings(memoryview(framed(items))) == items


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x01", "element 0 ends inside its length"),
        (b"\x01\x00\x00\x00a\x00\x00\x00", "element 1 ends inside its length"),
        (b"\x02\x00\x00\x00a", "element 0 is longer"),
        (b"\xff\xff\xff\xffa", "element 0 is longer"),
        (bytes(4 * (MAX_STRINGS + 1)), "more than 262144 elements"),
    ],
)
def test_broken_framing(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidTensor, match=text):
        list(string_spans(raw))


def test_most_strings_allowed() -> None:
    assert len(strings(bytes(4 * MAX_STRINGS))) == MAX_STRINGS


@given(st.data(), st.sampled_from(TYPED), st.integers(0, 9))
def test_typed_and_raw_are_the_same_values(data: st.DataObject, name: str, count: int) -> None:
    raw = data.draw(payloads(name, count))
    expected = pb.InferTensorContents()
    set_typed(expected, name, raw)
    assert raw_from_typed(DATATYPES[name], expected) == raw
    written = pb.InferTensorContents()
    getattr(written, DATATYPES[name].field).extend([b"old"] if name == "BYTES" else [True])
    typed_from_raw(DATATYPES[name], raw, written)
    assert written == expected


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_sixteen_bit_floats_have_no_typed_form(name: str) -> None:
    with pytest.raises(InvalidTensor, match=f"{name} has no typed form"):
        raw_from_typed(DATATYPES[name], pb.InferTensorContents())
    with pytest.raises(InvalidTensor, match=f"{name} has no typed form"):
        typed_from_raw(DATATYPES[name], b"", pb.InferTensorContents())


@pytest.mark.parametrize(
    ("name", "value"),
    [("INT8", 128), ("INT8", -129), ("INT16", 2**15), ("UINT8", 256), ("UINT16", 2**16)],
)
def test_typed_values_outside_the_range(name: str, value: int) -> None:
    contents = pb.InferTensorContents()
    getattr(contents, DATATYPES[name].field).append(value)
    with pytest.raises(InvalidTensor, match=f"outside the range of {name}"):
        raw_from_typed(DATATYPES[name], contents)


def test_raw_bools_other_than_one_become_true() -> None:
    contents = pb.InferTensorContents()
    typed_from_raw(DATATYPES["BOOL"], b"\x00\x01\x02\xff", contents)
    assert list(contents.bool_contents) == [False, True, True, True]
    array = array_from_raw(DATATYPES["BOOL"], (4,), b"\x00\x01\x02\xff")
    assert array.dtype == np.bool_
    assert array.tolist() == [False, True, True, True]


def test_a_part_of_an_element_is_a_callers_error() -> None:
    with pytest.raises(ValueError, match="multiple of element size"):
        typed_from_raw(DATATYPES["FP32"], b"abc", pb.InferTensorContents())


def test_an_unknown_field_with_the_values_number_is_refused() -> None:
    contents = pb.InferTensorContents.FromString(varint(6 << 3) + b"\x01" + field(6, bytes(4)))
    with pytest.raises(InvalidRequest, match="field 6"):
        raw_from_typed(DATATYPES["FP32"], contents)


@pytest.mark.parametrize("dtype", [d for d in DATATYPE_OF if d != np.object_], ids=str)
@pytest.mark.parametrize("offset", [0, 1])
def test_arrays_are_read_only_views(dtype: np.dtype, offset: int) -> None:
    expected = np.arange(6).reshape(2, 3).astype(dtype)
    raw = memoryview(bytes(offset) + expected.tobytes())[offset:]
    array = array_from_raw(DATATYPES[DATATYPE_OF[dtype]], (2, 3), raw)
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == dtype
    if dtype != np.bool_:
        assert not array.flags.writeable
        assert np.shares_memory(array, np.frombuffer(raw, np.uint8))


def test_bf16_becomes_float32_as_tritonclient_reads_it() -> None:
    values = np.array([[0.0, -1.5], [3.140625, 1e30]], np.float32)
    raw = serialize_bf16_tensor(values).item()
    array = array_from_raw(DATATYPES["BF16"], (2, 2), raw)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.ravel(), deserialize_bf16_tensor(raw).ravel())


def test_strings_become_an_object_array() -> None:
    array = array_from_raw(DATATYPES["BYTES"], (2, 1), framed([b"ab", b""]))
    assert array.dtype == np.object_
    assert array.tolist() == [[b"ab"], [b""]]


@pytest.mark.parametrize(
    ("name", "shape", "raw", "text"),
    [
        ("FP32", (2,), bytes(7), r"7 bytes, but shape \[2\] of FP32 takes 8"),
        ("BYTES", (2,), framed([b"a"]), r"1 elements for shape \[2\]"),
        ("INT8", (-1,), b"", "negative"),
    ],
)
def test_arrays_that_contradict_their_shape(
    name: str, shape: tuple[int, ...], raw: bytes, text: str
) -> None:
    with pytest.raises(InvalidTensor, match=text):
        array_from_raw(DATATYPES[name], shape, raw)


def test_a_huge_declared_string_count_allocates_nothing() -> None:
    with pytest.raises(InvalidTensor, match="1 elements for shape"):
        array_from_raw(DATATYPES["BYTES"], (2**40,), framed([b"a"]))
