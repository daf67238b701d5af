"""Waveforms from the wire and back, for every datatype, layout and scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidTensor
from proxy.waveforms import WaveformCodec
from tests.proxy.test_tensors import SPEC

SOUND = replace(
    SPEC, input="sound", kind="waveform", layout="NT", shape=(-1, -1), low=(-1.0,), high=(1.0,)
)
LAYOUTS = {"NT": (-1, -1), "NCT": (-1, -1, -1), "CT": (-1, -1), "T": (-1,)}


def codec(layout: str, **fields: Any) -> WaveformCodec:
    return WaveformCodec(replace(SOUND, layout=layout, shape=LAYOUTS[layout], **fields))


@given(st.sampled_from(list(LAYOUTS)), st.integers(0, 3), st.integers(1, 2), st.integers(1, 9))
def test_round_trip(layout: str, batch: int, channels: int, length: int) -> None:
    shape = (batch if "N" in layout else 1, channels if "C" in layout else 1, length)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    subject = codec(layout)
    wire = subject.wire_shape(x)
    assert len(wire) == len(layout)
    assert torch.equal(subject.decode(subject.encode(x), wire), x)
    assert subject.samples(wire) == shape[0]


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [("NT", (2, 3), (2, 1, 3)), ("NCT", (1, 2, 3), (1, 2, 3)), ("CT", (2, 3), (1, 2, 3))],
)
def test_axes_are_where_the_layout_says(
    layout: str, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    values = np.linspace(-1, 1, 6, dtype=np.float32)
    found = codec(layout).decode(values.tobytes(), shape)
    assert found.shape == expected
    assert found.flatten().tolist() == values.tolist()


def test_sixteen_bit_samples_keep_every_level() -> None:
    levels = np.arange(-32768, 32768).astype("<i2")
    subject = codec("T", datatype="INT16", low=(-32768.0,), high=(32768.0,))
    found = subject.decode(levels.tobytes(), levels.shape)
    assert found[0, 0, 32768] == 0
    assert found[0, 0, 0] == -1
    assert subject.encode(found) == levels.tobytes()
    assert np.frombuffer(subject.encode(torch.ones(1, 1, 1)), "<i2") == 32767


def test_the_range_is_that_of_full_scale() -> None:
    values = np.array([0.0, 1.0, 4.0], np.float32)
    subject = codec("T", low=(0.0,), high=(4.0,))
    found = subject.decode(values.tobytes(), (3,))
    assert found.flatten().tolist() == [-1, -0.5, 1]
    assert subject.encode(found) == values.tobytes()


@pytest.mark.parametrize("bad", [1.03, -1.5, 30000.0, float("nan"), float("inf"), float("-inf")])
def test_values_beyond_full_scale_are_refused(bad: float) -> None:
    values = np.array([[0.5, 0.1], [bad, 0.0]], np.float32)
    with pytest.raises(InvalidTensor, match=r"'sound' has values up to .* check range"):
        codec("NT").decode(values.tobytes(), (2, 2))


def test_values_within_the_tolerance_are_clamped() -> None:
    values = np.array([1.015, -1.02], np.float32)
    assert codec("T").decode(values.tobytes(), (2,)).flatten().tolist() == [1, -1]


@pytest.mark.parametrize(("layout", "shape"), [("NT", (2, 0)), ("NCT", (2, 0, 5)), ("T", (0,))])
def test_waveforms_without_samples_are_refused(layout: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidTensor, match="without samples"):
        codec(layout).decode(b"", shape)


def test_two_channels_have_no_shape_without_a_channel_axis() -> None:
    with pytest.raises(InvalidTensor, match="takes 1 channel, not 2"):
        codec("NT").wire_shape(torch.zeros(1, 2, 8))
