"""Rows of numbers from the wire and back, for every datatype and shape."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidTensor
from proxy.vectors import VectorCodec
from tests.proxy.test_tensors import SPEC

ROWS = replace(SPEC, input="row", kind="vector", layout="ND", shape=(-1, 6))
WIRE = {"FP64": "<f8", "FP32": "<f4", "FP16": "<f2"}


@given(
    st.sampled_from([*WIRE, "BF16"]),
    st.sampled_from([(-1, 6), (-1, 2, 3), (6,), (2, 3)]),
    st.integers(0, 3),
)
def test_round_trip(datatype: str, declared: tuple[int, ...], batch: int) -> None:
    layout, count = ("ND", batch) if declared[0] == -1 else ("D", 1)
    subject = VectorCodec(replace(ROWS, datatype=datatype, shape=declared, layout=layout))
    x = 100 * torch.randn(count, 6, generator=torch.Generator().manual_seed(batch))
    x = x.to(torch.bfloat16 if datatype == "BF16" else torch.float16).float()
    shape = subject.wire_shape(x)
    assert len(shape) == len(declared)
    assert torch.equal(subject.decode(subject.encode(x), shape), x)
    assert subject.samples(shape) == count


@pytest.mark.parametrize("datatype", list(WIRE))
def test_all_axes_but_the_batch_are_laid_end_to_end(datatype: str) -> None:
    values = np.arange(12).reshape(2, 2, 3).astype(WIRE[datatype])
    subject = VectorCodec(replace(ROWS, datatype=datatype, shape=(-1, 2, 3)))
    found = subject.decode(values.tobytes(), values.shape)
    assert found.dtype == torch.float32
    assert found.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert subject.encode(found) == values.tobytes()


def test_values_of_any_size_are_taken_as_they_are() -> None:
    values = np.array([[-3e38, 1e-40, 0, 5, 1e6, 3e38]], np.float32)
    assert VectorCodec(ROWS).decode(values.tobytes(), (1, 6)).tolist() == values.tolist()


def test_what_is_not_finite_stays_visible() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0, 0, 0]], np.float64)
    found = VectorCodec(replace(ROWS, datatype="FP64")).decode(values.tobytes(), (1, 6))[0]
    assert math.isnan(found[0])
    assert found[1:3].tolist() == [math.inf, -math.inf]


def test_doubles_that_would_become_infinite_are_refused() -> None:
    values = np.array([[0, 0, -1e39, 0, 0, 0]], np.float64)
    with pytest.raises(InvalidTensor, match="'row' has values beyond"):
        VectorCodec(replace(ROWS, datatype="FP64")).decode(values.tobytes(), (1, 6))


def test_rows_of_another_length_have_no_shape_on_the_wire() -> None:
    with pytest.raises(InvalidTensor, match="'row' takes 6 values a sample, not 5"):
        VectorCodec(ROWS).wire_shape(torch.zeros(2, 5))
