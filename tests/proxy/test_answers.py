"""What counts as a model's answer, and which requests show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proxy import wire
from proxy.answers import read_output, shows_output
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
