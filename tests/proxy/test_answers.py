"""What counts as a model's answer, and which requests show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from proxy import wire
from proxy.answers import (
    check_whose,
    copies_request,
    read_output,
    shows_output,
    swap_classes,
    write_output,
)
from proxy.errors import UpstreamError
from proxy.pb import open_inference_pb2 as pb
from tests.builders import infer_request, infer_response, set_parameter
from tests.proxy.test_tensors import SPEC

ROWS = np.arange(20, dtype=np.float32).reshape(2, 10)


def response(rows: Any, name: str = "logits") -> bytes:
    return infer_response({name: np.asarray(rows)}).SerializeToString()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_class_scores_are_read_in_any_precision(dtype: type) -> None:
    found = read_output(response(ROWS.astype(dtype)), SPEC, 2)
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, ROWS)


@pytest.mark.parametrize("shape", [(2, 10), (2, 1, 10), (2, 10, 1, 1)])
def test_axes_of_one_are_no_axes(shape: Sequence[int]) -> None:
    found = read_output(response(ROWS.reshape(shape)), SPEC, 2)
    assert found is not None
    assert found.shape == (2, 10)


def test_probabilities_become_finite_logarithms() -> None:
    found = read_output(
        response(np.array([[0.0, 1.0]], np.float32)), replace(SPEC, output_kind="probabilities"), 1
    )
    assert found is not None
    assert found[0, 1] == 0
    assert -90 < found[0, 0] < -80


def test_a_model_without_a_batch_axis_answers_for_one() -> None:
    spec = replace(SPEC, layout="CHW", shape=(3, 8, 8))
    found = read_output(response(ROWS[0]), spec, 1)
    assert found is not None
    assert found.shape == (1, 10)


@pytest.mark.parametrize(
    ("data", "samples"),
    [
        (response(ROWS, "other"), 2),
        (response(ROWS.astype(np.int32)), 2),
        (response(np.array([[b"1:2"]], np.object_)), 1),
        (response(ROWS[:, :1]), 2),
        (response(ROWS.reshape(2, 2, 5)), 2),
        (response(ROWS), 3),
        (response(np.zeros((0, 10), np.float32)), 0),
        (b"", 1),
        (b"\xff", 1),
        (response(ROWS)[:-1], 2),
    ],
    ids=[
        *("another", "integers", "classes", "one class", "feature map", "other count", "empty"),
        *("nothing", "no message", "cut short"),
    ],
)
def test_anything_else_is_no_evidence(data: bytes, samples: int) -> None:
    assert read_output(data, SPEC, samples) is None


@pytest.mark.parametrize(
    ("outputs", "shown"),
    [
        ([], True),
        ([("logits", {})], True),
        ([("other", {}), ("logits", {})], True),
        ([("other", {})], False),
        ([("logits", {"classification": 3})], False),
        ([("logits", {"shared_memory_region": "r"})], False),
        ([("logits", {}), ("logits", {"classification": 3})], False),
        ([("logits", {"classification": 3}), ("logits", {})], False),
    ],
)
def test_which_requests_show_the_models_answer(
    outputs: list[tuple[str, dict[str, Any]]], shown: bool
) -> None:
    message = infer_request({"image": ROWS})
    for name, parameters in outputs:
        output = message.outputs.add(name=name)
        for key, value in parameters.items():
            set_parameter(output.parameters, key, value)
    request = wire.InferRequest.parse(message.SerializeToString())
    assert shows_output(request, SPEC) is shown
    assert not shows_output(request, replace(SPEC, output=None))


NEW = {1: np.linspace(-3, 3, 10, dtype=np.float32)}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_written_in_the_answers_own_precision(dtype: type) -> None:
    message = infer_response({"embedding": ROWS, "logits": ROWS.astype(dtype)}, request_id="7")
    edited = write_output(message.SerializeToString(), SPEC, 2, NEW)
    expected = ROWS.astype(dtype)
    expected[1] = NEW[1]
    message.raw_output_contents[1] = expected.tobytes()
    assert edited == message.SerializeToString()


def test_half_of_a_float_is_rounded_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -np.pi, 1e-30], np.float32)
    message = pb.ModelInferResponse(
        outputs=[{"name": "logits", "datatype": "BF16", "shape": [2, 5]}],
        raw_output_contents=[bytes(20)],
    )
    edited = write_output(message.SerializeToString(), SPEC, 2, {1: values})
    found = read_output(edited, SPEC, 2)
    assert found is not None
    reference = torch.from_numpy(values).to(torch.bfloat16).float().tolist()
    assert found[1].tolist() == reference
    assert not found[0].any()


def test_probabilities_are_written_as_probabilities() -> None:
    spec = replace(SPEC, output_kind="probabilities")
    share = np.array([0.1, 0.7, 0.2], np.float32)
    edited = write_output(response(np.ones((2, 3), np.float32)), spec, 2, {0: np.log(share)})
    (tensor,) = wire.InferResponse.parse(edited).tensors
    np.testing.assert_allclose(wire.as_numpy(tensor), [share, [1, 1, 1]], rtol=1e-6)


def test_a_model_without_a_batch_axis_has_one_row() -> None:
    spec = replace(SPEC, layout="CHW", shape=(3, 8, 8))
    found = read_output(write_output(response(ROWS[0]), spec, 1, {0: NEW[1]}), spec, 1)
    assert found is not None
    assert np.array_equal(found[0], NEW[1])


def test_copies_of_some_samples_take_their_rows_of_other_inputs_along() -> None:
    message = infer_request(
        {
            "image": np.zeros((3, 3, 2, 2), np.float32),
            "number": np.array([[1, 2], [3, 4], [5, 6]], np.int32),
            "text": np.array([[b"a", b""], [b"bb", b"c"], [b"", b"ddd"]], np.object_),
            "setting": np.array([7.5], np.float32),
        }
    )
    request = wire.InferRequest.parse(message.SerializeToString())
    copies = [bytes(2 * 48), memoryview(b"\1" * (2 * 48)).cast("i")]
    asked = wire.InferRequest.parse(copies_request(request, SPEC, 0, copies, samples=(0, 2)))
    image, number, text, setting = (wire.as_numpy(tensor) for tensor in asked.tensors)
    assert image.shape == (4, 3, 2, 2)
    assert image.tobytes() == bytes(2 * 48) + b"\1" * (2 * 48)
    assert number.tolist() == [[1, 2], [5, 6]] * 2
    assert text.tolist() == [[b"a", b""], [b"", b"ddd"]] * 2
    assert setting.tolist() == [7.5, 7.5]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16"])
def test_two_classes_change_places_to_the_last_bit(datatype: str) -> None:
    dtype = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2"}[datatype]
    rows = np.array([[0.1, 2.3, 1 / 3], [1, 0, 0], [5, 6, 7]], dtype)
    output = pb.ModelInferResponse.InferOutputTensor(
        name=SPEC.output, datatype=datatype, shape=rows.shape
    )
    message = pb.ModelInferResponse(outputs=[output], raw_output_contents=[rows.tobytes()])
    given = swap_classes(message.SerializeToString(), SPEC, 3, {0: (2, 1), 1: (1, 0)})
    (raw,) = pb.ModelInferResponse.FromString(given).raw_output_contents
    expected = rows.copy()
    expected[0] = rows[0][[0, 2, 1]]
    expected[1] = rows[1][[1, 0, 2]]
    assert raw == expected.tobytes()


def answer_named(name: str, model: str = "m") -> bytes:
    """An answer with this id, behind a model's name of any length."""
    return pb.ModelInferResponse(model_name=model, model_version="1", id=name).SerializeToString()


@pytest.mark.parametrize("model", ["m", "m" * 5000])
@pytest.mark.parametrize("name", ["a", "é" * 63, "x" * 127, "x" * 128, "x" * 3000])
def test_an_answer_by_its_own_id_or_none_is_the_requests(name: str, model: str) -> None:
    check_whose(answer_named(name, model), name)
    check_whose(answer_named("", model), name)  # a server that does not repeat ids
    check_whose(answer_named("anything", model), "")


@pytest.mark.parametrize("given", ["another", "mine2", "min", "x" * 3000])
@pytest.mark.parametrize("wanted", ["mine", "x" * 2999])
def test_an_answer_by_another_id_is_refused(given: str, wanted: str) -> None:
    with pytest.raises(UpstreamError, match="another request") as refused:
        check_whose(answer_named(given), wanted)
    assert refused.value.code_name == "INTERNAL"
    assert wanted not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"\x1a\x05mine", b"\x32\x7f"])
def test_what_cannot_be_read_is_the_servers_own_affair(data: bytes) -> None:
    check_whose(data, "mine")
