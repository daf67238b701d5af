from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest
from proxy.pb import open_inference_pb2 as pb
from proxy.reader import MAX_HEAD_BYTES, MAX_HEADS, Reader
from proxy.validation import validate
from proxy.wire import InferRequest
from tests.builders import infer_request
from tests.proxy.strategies import messages, unusual


def image(value: float = 0.5, **fields: str) -> bytes:
    message = infer_request({"image": np.full((1, 3, 2, 2), value, np.float32)})
    for name, text in fields.items():
        setattr(message, name, text)
    return message.SerializeToString()


def read(
    reader: Reader, data: bytes, non_finite: Literal["refuse", "pass"] = "refuse"
) -> tuple[InferRequest, bool]:
    request, known = reader.read(data)
    reader.validate(request, known=known, non_finite=non_finite)
    return request, known


def test_a_head_is_known_from_the_second_time_on() -> None:
    reader = Reader()
    first, was_known = read(reader, image(0.1, id="a"))
    second, is_known = read(reader, image(0.2, id="b"))
    assert (was_known, is_known) == (False, True)
    assert (first.request_id, second.request_id) == ("a", "b")
    assert second.head == first.head
    assert [(t.index, t.name, t.datatype, t.shape) for t in second.tensors] == [
        (t.index, t.name, t.datatype, t.shape) for t in first.tensors
    ]
    assert bytes(second.tensors[0].payload()) == np.full(12, 0.2, np.float32).tobytes()
    assert bytes(first.tensors[0].payload()) == np.full(12, 0.1, np.float32).tobytes()


def test_a_known_head_is_spliced_like_a_new_one() -> None:
    reader = Reader()
    read(reader, image(0.1, id="a"))
    request, known = read(reader, image(0.2, id="b"))
    assert known
    assert request.replace({0: np.full(12, 0.3, np.float32).tobytes()}) == image(0.3, id="b")


@pytest.mark.parametrize("field", ["model_name", "model_version"])
def test_any_other_field_makes_another_head(field: str) -> None:
    reader = Reader()
    read(reader, image())
    assert not read(reader, image(**{field: "7"}))[1]


def test_another_length_is_another_request() -> None:
    reader = Reader()
    read(reader, image())
    message = pb.ModelInferRequest.FromString(image())
    message.raw_input_contents[0] += bytes(4)
    with pytest.raises(InvalidRequest, match="52 bytes"):
        read(reader, message.SerializeToString())
    del message.raw_input_contents[:]
    with pytest.raises(InvalidRequest, match="has no data"):
        read(reader, message.SerializeToString())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_are_looked_at_every_time(value: float) -> None:
    reader = Reader()
    read(reader, image())
    with pytest.raises(InvalidRequest, match="input 'image': has a value that is NaN or infinite"):
        read(reader, image(value))
    assert read(reader, image(value), "pass")[1]


def test_ids_are_looked_at_every_time() -> None:
    reader = Reader()
    read(reader, image())
    with pytest.raises(InvalidRequest):
        read(reader, image() + b"\x1a\x01\xff")
    with pytest.raises(InvalidRequest):
        read(reader, image() + b"\x1a\x01\xff" + b"\x1a\x01b")


def test_what_lies_outside_the_key_is_not_remembered() -> None:
    reader = Reader()
    typed = pb.ModelInferRequest(model_name="m")
    tensor = typed.inputs.add(name="x", datatype="INT32", shape=[1])
    tensor.contents.int_contents.append(1)
    strings = infer_request({"x": np.array([b"ab"], np.object_)})
    shared = pb.ModelInferRequest(model_name="m")
    place = shared.inputs.add(name="x", datatype="INT32", shape=[1]).parameters
    place["shared_memory_region"].string_param = "r"
    place["shared_memory_byte_size"].int64_param = 4
    output = infer_request({"x": np.zeros(1, np.int32)})
    place = output.outputs.add(name="y").parameters
    place["shared_memory_region"].string_param = "r"
    place["shared_memory_byte_size"].int64_param = 4
    for message in (typed, strings, shared, output):
        for _ in range(2):
            assert not read(reader, message.SerializeToString())[1]


def test_invalid_requests_are_not_remembered() -> None:
    reader = Reader()
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="model name"):
            read(reader, image(model_name="../m"))


def test_the_memory_is_bounded() -> None:
    reader = Reader()
    for number in range(MAX_HEADS + 1):
        read(reader, image(model_name=f"m{number}"))
    assert not read(reader, image(model_name="m0"))[1]  # the oldest has gone
    assert read(reader, image(model_name=f"m{MAX_HEADS}"))[1]
    long = pb.ModelInferRequest.FromString(image())
    long.parameters["note"].string_param = "x" * MAX_HEAD_BYTES
    for _ in range(2):
        assert not read(reader, long.SerializeToString())[1]


def outcome(data: bytes) -> tuple[str, object]:
    """What parsing and validating anew says."""
    try:
        request = InferRequest.parse(data)
        validate(request, non_finite="refuse")
    except InvalidRequest as error:
        return "refused", str(error)
    return "read", (request.request_id, request.head.SerializeToString(deterministic=True))


@given(st.data())
def test_remembering_changes_nothing(data: st.DataObject) -> None:
    """Any requests in any order: the same answer as from a reader without a memory."""
    drawn = data.draw(st.lists(messages(), min_size=1, max_size=3))
    forms = [message.SerializeToString() for message in drawn]
    forms += [data.draw(unusual(message)) for message in drawn]
    reader = Reader()
    for message in data.draw(st.lists(st.sampled_from(forms), min_size=2, max_size=8)):
        try:
            request, _ = read(reader, message)
            head = request.head.SerializeToString(deterministic=True)
            told: tuple[str, object] = ("read", (request.request_id, head))
        except InvalidRequest as error:
            told = ("refused", str(error))
        assert told == outcome(message)
