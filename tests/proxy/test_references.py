from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from proxy.pb import open_inference_pb2 as pb
from proxy.references import Places, can_move, places
from proxy.wire import InferRequest
from tests.builders import infer_request

REGION = "breakwater-region"
LARGE, SMALL = np.arange(64, dtype=np.float32), np.ones(2, np.int32)
TEXT = np.array([b"x" * 300], np.object_)


def rewritten(
    message: pb.ModelInferRequest, *, start: int = 0, least_bytes: int = 64
) -> tuple[Places, pb.ModelInferRequest]:
    request = InferRequest.parse(message.SerializeToString())
    sizes = [piece.end - piece.start for piece in request.pieces]
    found = places(request.common, sizes, REGION, least_bytes=least_bytes)
    assert found is not None
    sent = pb.ModelInferRequest.FromString(found.message(start, request.pieces, request.request_id))
    return found, sent


def reference(item: Any) -> tuple[str, int, int]:
    p = item.parameters
    return (
        p["shared_memory_region"].string_param,
        p["shared_memory_byte_size"].int64_param,
        p["shared_memory_offset"].int64_param,
    )


def without_references(message: pb.ModelInferRequest) -> pb.ModelInferRequest:
    for item in message.inputs:
        for key in [key for key in item.parameters if key.startswith("shared_memory")]:
            del item.parameters[key]
    message.ClearField("raw_input_contents")
    return message


@pytest.mark.parametrize("start", [0, 64, 128, 2**20, 2**34 - 64])
def test_a_tensor_becomes_a_reference_and_the_rest_stays(start: int) -> None:
    message = infer_request(
        {"a": LARGE}, model="m", version="3", request_id="i", outputs=("y",),
        parameters={"priority": 2, "mine": "x"},
    )  # fmt: skip
    message.inputs[0].parameters["other"].string_param = "kept"
    found, sent = rewritten(message, start=start)
    assert found.byte_size == LARGE.nbytes
    assert reference(sent.inputs[0]) == (REGION, LARGE.nbytes, start)
    assert not sent.raw_input_contents
    assert without_references(sent) == without_references(message)


@pytest.mark.parametrize("order", [("a", "s", "b"), ("s", "a", "b"), ("a", "b", "s"), ("t", "a")])
def test_small_ones_and_text_stay_in_the_message_in_their_order(order: tuple[str, ...]) -> None:
    values = {"a": LARGE, "b": LARGE + 1, "s": SMALL, "t": TEXT}
    message = infer_request({name: values[name] for name in order})
    found, sent = rewritten(message, start=4096)
    raw = dict(zip(order, message.raw_input_contents, strict=True))
    stay = [name for name in order if name in "st"]
    assert list(sent.raw_input_contents) == [raw[name] for name in stay]
    assert [order[index] for index, _ in found.moved] == [n for n in order if n not in stay]
    offsets = [reference(i)[2] for i in sent.inputs if "shared_memory_region" in i.parameters]
    assert offsets == [4096 + 256 * n for n in range(len(offsets))]
    assert without_references(sent) == without_references(message)


def test_what_a_client_says_under_these_names_is_void() -> None:
    message = infer_request({"a": LARGE})
    for key in ("shared_memory_offset", "shared_memory_byte_size"):
        message.inputs[0].parameters[key].int64_param = 7
    _, sent = rewritten(message, start=640)
    assert reference(sent.inputs[0]) == (REGION, LARGE.nbytes, 640)


def test_unknown_fields_go_along() -> None:
    message = infer_request({"a": LARGE}).SerializeToString() + b"\xa2\x06\x03new"
    request = InferRequest.parse(message)
    found = places(request.common, [LARGE.nbytes], REGION, least_bytes=1)
    assert found is not None
    assert b"\xa2\x06\x03new" in found.message(0, request.pieces, "")


def test_nothing_to_move() -> None:
    for tensors in ({"s": SMALL}, {"t": TEXT}, {"e": np.zeros((0, 3), np.float32)}):
        request = InferRequest.parse(infer_request(tensors).SerializeToString())
        sizes = [piece.end - piece.start for piece in request.pieces]
        least = 0 if "e" in tensors else 64
        assert places(request.common, sizes, REGION, least_bytes=least) is None


def test_entries_that_are_not_one_an_input_stay() -> None:
    request = InferRequest.parse(infer_request({"a": LARGE}).SerializeToString())
    for sizes in ([], [256, 256]):
        assert places(request.common, sizes, REGION, least_bytes=1) is None


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, True),
        ({"priority": 1}, True),
        ({"sequence_id": 1}, False),
        ({"sequence_id": "a"}, False),
    ],
)
def test_sequences_are_left_alone(parameters: Mapping[str, Any], expected: bool) -> None:
    message = infer_request({"a": LARGE}, parameters=parameters)
    assert can_move(InferRequest.parse(message.SerializeToString()).common) is expected


def test_typed_values_and_shared_memory_are_left_alone() -> None:
    typed = pb.ModelInferRequest(model_name="m")
    typed.inputs.add(name="a", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    shared = pb.ModelInferRequest(model_name="m")
    item = shared.inputs.add(name="a", datatype="FP32", shape=[1])
    item.parameters["shared_memory_region"].string_param = "theirs"
    output = infer_request({"a": LARGE}, outputs=("y",))
    output.outputs[0].parameters["shared_memory_region"].string_param = "theirs"
    for message in (typed, shared, output):
        assert not can_move(InferRequest.parse(message.SerializeToString()).common)
