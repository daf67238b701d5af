"""What every codec shares, on the simplest of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from proxy.errors import InvalidTensor
from proxy.vectors import VectorCodec
from tests.proxy.test_vectors import ROWS


def test_the_values_are_a_copy() -> None:
    data = bytearray(np.full((1, 6), 0.5, "<f4").tobytes())
    found = VectorCodec(ROWS).decode(memoryview(data).toreadonly(), (1, 6))
    data[:] = bytes(len(data))
    assert (found == 0.5).all()


def test_unaligned_views_of_a_message_are_read() -> None:
    message = b"x" + np.arange(6, dtype="<f4").tobytes()
    found = VectorCodec(ROWS).decode(memoryview(message)[1:], (1, 6))
    assert found.tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5), r"has shape \[1, 5\], expected \[-1, 6\]"),
        ((6,), r"expected \[-1, 6\]"),
        ((1, 6, 1), r"expected \[-1, 6\]"),
        ((9, 6), "9 samples, more than 8"),
    ],
)
def test_shapes_triton_would_refuse_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidTensor, match=message):
        VectorCodec(replace(ROWS, max_batch=8)).samples(shape)


@pytest.mark.parametrize(("datatype", "largest"), [("FP16", 65504.0), ("BF16", 3.3895314e38)])
def test_what_the_datatype_cannot_hold_becomes_the_largest_it_can(
    datatype: str, largest: float
) -> None:
    subject = VectorCodec(replace(ROWS, datatype=datatype))
    x = torch.tensor([[3.4e38, -3.4e38, 1.0, 0.0, 0.0, 0.0]])
    found = subject.decode(subject.encode(x), (1, 6))[0, :3].tolist()
    assert found == pytest.approx([largest, -largest, 1.0])
