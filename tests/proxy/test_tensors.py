"""Wire tensors to pixels and back, for every datatype, layout and scale."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from proxy.adapt import ModelSpec
from proxy.errors import InvalidTensor
from proxy.tensors import PixelCodec
from tests.builders import framed

SPEC = ModelSpec(
    model="m",
    input="image",
    datatype="FP32",
    layout="NCHW",
    shape=(-1, -1, -1, -1),
    low=(0.0,),
    high=(1.0,),
    tolerance=0.02,
    encoded=False,
    size=None,
    max_pixels=10_000,
    ignored_inputs=(),
    output="logits",
    output_kind="logits",
    batch_limit=64,
    max_batch=None,
    stateful=False,
    may_be_stateful=False,
    decoupled=False,
    versions=("1",),
)
FILES = replace(
    SPEC, datatype="BYTES", layout=None, shape=(-1, 1), encoded=True, size=(8, 6), max_pixels=400
)
WIRE = {"FP32": "<f4", "FP16": "<f2", "UINT8": "u1", "INT8": "i1"}
AXES = {"NCHW": "bchw", "NHWC": "bhwc", "CHW": "chw", "HWC": "hwc"}


def codec(**fields: Any) -> PixelCodec:
    layout = fields.get("layout", "NCHW")
    return PixelCodec(replace(SPEC, shape=(-1,) * len(layout), **fields))


def wire_shape(layout: str, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(sizes[axis] for axis in AXES[layout])


@st.composite
def scales(draw: st.DrawFn, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(low, high) of a range, or of a mean and a standard deviation for each channel."""
    if draw(st.booleans()):
        low = draw(st.floats(-300, 300, width=32))
        return (low,), (low + draw(st.floats(0.5, 300, width=32)),)
    mean = draw(st.lists(st.floats(0, 1), min_size=channels, max_size=channels))
    std = draw(st.lists(st.floats(0.1, 1), min_size=channels, max_size=channels))
    pairs = list(zip(mean, std, strict=True))
    return tuple(-m / s for m, s in pairs), tuple((1 - m) / s for m, s in pairs)


@given(st.data(), st.sampled_from(["FP32", "FP16", "BF16"]), st.sampled_from(list(AXES)))
def test_float_tensors_round_trip(data: st.DataObject, datatype: str, layout: str) -> None:
    batch = data.draw(st.integers(0, 3)) if "N" in layout else 1
    channels = data.draw(st.sampled_from([1, 3]))
    height, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    low, high = data.draw(scales(channels))
    pixels = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
    subject = codec(datatype=datatype, layout=layout, low=low, high=high, tolerance=2.0)
    shape = wire_shape(layout, {"b": batch, "c": channels, "h": height, "w": width})

    decoded = subject.decode(subject.encode(pixels), shape)

    # One step of the datatype at the largest wire value, in pixels.
    largest = max(map(abs, (*low, *high)))
    span = min(h - lo for lo, h in zip(low, high, strict=True))
    step = {"FP32": 2**-22, "FP16": 2**-10, "BF16": 2**-7}[datatype] * (largest / span + 1)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == torch.float32
    assert torch.allclose(decoded, pixels, rtol=0, atol=step)


@given(st.data(), st.sampled_from(["UINT8", "INT8"]), st.sampled_from(list(AXES)))
def test_integer_tensors_round_trip_exactly(
    data: st.DataObject, datatype: str, layout: str
) -> None:
    sizes = {axis: data.draw(st.integers(1, 4)) for axis in "bhw"}
    sizes["c"] = data.draw(st.sampled_from([1, 3]))
    shape = wire_shape(layout, sizes)
    count = int(np.prod(shape))
    raw = data.draw(st.binary(min_size=count, max_size=count))
    low, high = {"UINT8": (0.0, 255.0), "INT8": (-128.0, 127.0)}[datatype]
    subject = codec(datatype=datatype, layout=layout, low=(low,), high=(high,))
    assert subject.encode(subject.decode(raw, shape)) == raw


@pytest.mark.parametrize("layout", list(AXES))
def test_axes_are_where_the_layout_says(layout: str) -> None:
    sizes = {"b": 2 if "N" in layout else 1, "c": 3, "h": 4, "w": 5}
    wire = np.random.default_rng(0).random(wire_shape(layout, sizes), np.float32)
    found = codec(layout=layout).decode(wire.tobytes(), wire.shape).numpy()
    batched = wire if "N" in layout else wire[None]
    expected = batched.transpose(0, 3, 1, 2) if layout.endswith("HWC") else batched
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("datatype", list(WIRE))
@pytest.mark.parametrize("shift", [1, 2, 3])
def test_unaligned_views_of_a_message_are_read(datatype: str, shift: int) -> None:
    values = np.zeros((1, 1, 4, 4), WIRE[datatype])
    values[0, 0, 1, 2] = 1
    message = b"x" * shift + values.tobytes()
    found = codec(datatype=datatype).decode(memoryview(message)[shift:], values.shape)
    assert found.sum() == 1
    assert found[0, 0, 1, 2] == 1


def test_the_pixels_are_a_copy() -> None:
    data = bytearray(np.full((1, 1, 2, 2), 0.5, "<f4").tobytes())
    found = codec().decode(memoryview(data).toreadonly(), (1, 1, 2, 2))
    data[:] = bytes(len(data))
    assert (found == 0.5).all()


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    raw = b"".join(np.float32(v).tobytes()[2:] for v in (0.0, 0.5, 0.25, 1.0))
    found = codec(datatype="BF16").decode(raw, (1, 1, 2, 2))
    assert found.flatten().tolist() == [0.0, 0.5, 0.25, 1.0]


@pytest.mark.parametrize("bad", [-0.03, 1.03, 255.0, float("nan"), float("inf"), float("-inf")])
def test_values_out_of_range_are_refused(bad: float) -> None:
    values = np.full((2, 3, 2, 2), 0.5, np.float32)
    values[1, 2, 0, 1] = bad
    with pytest.raises(InvalidTensor, match=r"'image' has pixel values from .* check range"):
        codec().decode(values.tobytes(), values.shape)


@pytest.mark.parametrize(("value", "pixel"), [(-0.02, 0.0), (1.015, 1.0)])
def test_values_within_the_tolerance_are_clamped(value: float, pixel: float) -> None:
    values = np.full((1, 1, 1, 1), value, np.float32)
    assert codec().decode(values.tobytes(), values.shape).item() == pixel


def test_every_channel_has_its_own_scale() -> None:
    subject = codec(low=(0.0, -1.0, 10.0), high=(1.0, 1.0, 30.0))
    wire = np.array([0.5, 0.0, 15.0], np.float32)
    assert subject.decode(wire.tobytes(), (1, 3, 1, 1)).flatten().tolist() == [0.5, 0.5, 0.25]
    assert np.frombuffer(subject.encode(torch.full((1, 3, 1, 1), 0.5)), "<f4").tolist() == [
        *(0.5, 0.0, 20.0)
    ]


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        ((1, 2, 4, 4), {}, "has 2 channels, expected 1 or 3"),
        ((1, 0, 4, 4), {}, "has 0 channels"),
        ((1, 1, 0, 4), {}, "images without pixels"),
        ((1, 1, 4, 4), {"low": (0.0,) * 3, "high": (1.0,) * 3}, "has 1 channels, expected 3"),
        ((1, 4, 4), {}, r"has shape \[1, 4, 4\], expected \[-1, -1, -1, -1\]"),
        ((), {}, r"has shape \[\]"),
    ],
)
def test_shapes_the_model_cannot_mean(
    shape: tuple[int, ...], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidTensor, match=message):
        codec(**fields).decode(bytes(4 * int(np.prod(shape))), shape)


@pytest.mark.parametrize(
    ("spec", "shape", "samples"),
    [
        (replace(SPEC, shape=(-1, 3, 8, 8)), (5, 3, 8, 8), 5),
        (replace(SPEC, shape=(-1, 3, 8, 8)), (0, 3, 8, 8), 0),
        (replace(SPEC, shape=(3, 8, 8), layout="CHW"), (3, 8, 8), 1),
        (FILES, (4, 1), 4),
        (replace(FILES, shape=(-1,)), (4,), 4),
        (replace(FILES, shape=(-1, -1)), (4, 1), 4),
    ],
)
def test_samples_are_counted(spec: ModelSpec, shape: tuple[int, ...], samples: int) -> None:
    assert PixelCodec(spec).samples(shape) == samples


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        (replace(SPEC, shape=(-1, 3, 8, 8)), (1, 3, 8, 9), "expected"),
        (replace(SPEC, shape=(-1, 3, 8, 8)), (3, 8, 8), "expected"),
        (replace(SPEC, shape=(-1, 3, 8, 8), max_batch=2), (3, 3, 8, 8), "3 samples, more than 2"),
        (FILES, (4, 2), "expected"),
        (FILES, (), "expected"),
        (replace(FILES, shape=(-1, -1)), (1, 2), "one file a sample"),
    ],
)
def test_shapes_triton_would_refuse_are_refused(
    spec: ModelSpec, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidTensor, match=message):
        PixelCodec(spec).samples(shape)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("datatype", ["FP32", "UINT8"])
def test_an_empty_batch(layout: str, datatype: str) -> None:
    subject = codec(layout=layout, datatype=datatype)
    found = subject.decode(b"", wire_shape(layout, {"b": 0, "c": 3, "h": 4, "w": 5}))
    assert found.shape == (0, 3, 4, 5)
    assert subject.encode(found) == b""


# -- encoded images --------------------------------------------------------------------------------


def picture(kind: str = "PNG", colour: Any = (200, 100, 50), size: tuple[int, int] = (12, 10)):
    buffer = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def test_files_become_one_batch_at_the_models_size() -> None:
    data = framed([picture(), picture("JPEG", size=(4, 16))])
    found = PixelCodec(FILES).decode(data, (2, 1))
    assert found.shape == (2, 3, 8, 6)
    assert torch.allclose(found[0, :, 0, 0], torch.tensor([200, 100, 50]) / 255)
    assert torch.allclose(found[1], found[0], atol=3 / 255)


def test_a_grey_file_has_the_same_evidence_alone_and_in_company() -> None:
    subject = PixelCodec(FILES)
    alone = subject.decode(framed([picture(colour=90)]), (1, 1))
    company = subject.decode(framed([picture(colour=90), picture()]), (2, 1))
    assert alone.shape == (1, 3, 8, 6)
    assert torch.equal(alone[0], company[0])


def test_no_files_are_an_empty_batch() -> None:
    assert PixelCodec(FILES).decode(b"", (0, 1)).shape == (0, 3, 8, 6)


def test_one_request_cannot_hold_many_large_images() -> None:
    subject = PixelCodec(FILES)
    large = picture(size=(20, 20))  # 400 pixels: exactly the bound on one
    assert len(subject.decode(framed([large] * 4), (4, 1))) == 4
    with pytest.raises(InvalidTensor, match="over the limit"):
        subject.decode(framed([large] * 4 + [picture(size=(1, 1))]), (5, 1))


def test_one_bad_file_is_refused() -> None:
    with pytest.raises(InvalidTensor, match="not a readable"):
        PixelCodec(FILES).decode(framed([picture(), b"GIF89a"]), (2, 1))


def test_encoded_pixels_become_files_that_decode_to_them() -> None:
    subject = PixelCodec(FILES)
    levels = torch.arange(2 * 3 * 8 * 6) % 256
    pixels = (levels / 255).view(2, 3, 8, 6)
    assert torch.allclose(subject.decode(subject.encode(pixels), (2, 1)), pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_editing_a_file_keeps_its_size_and_format(kind: str) -> None:
    subject = PixelCodec(FILES)
    seen = []

    def invert(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return 1 - x

    edited = Image.open(io.BytesIO(subject.edit_file(picture(kind), invert)))
    assert seen == [(1, 3, 10, 12)]
    assert (edited.format, edited.size) == (kind, (12, 10))
    assert np.abs(np.asarray(edited)[0, 0].astype(int) - (55, 155, 205)).max() <= 3


def test_files_are_taken_apart_and_framed_again() -> None:
    subject = PixelCodec(FILES)
    data = framed([b"", b"abc", picture()])
    assert subject.frame(subject.files(memoryview(data))) == data


def test_a_spec_without_a_size_reads_no_files() -> None:
    with pytest.raises(InvalidTensor, match="need a size"):
        PixelCodec(replace(FILES, size=None)).decode(framed([picture()]), (1, 1))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_bytes_are_divided_in_single_precision(layout: str) -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3)
    shape = (1, 3, 16, 16) if layout == "NCHW" else (1, 16, 16, 3)
    subject = codec(datatype="UINT8", layout=layout, low=(0.0,), high=(255.0,))
    x = subject.decode(every.tobytes(), shape)
    wire = torch.from_numpy(every).view(shape)
    expected = wire if layout == "NCHW" else wire.permute(0, 3, 1, 2)
    assert torch.equal(x, expected.float() / 255.0)
    assert x.is_contiguous()
    assert subject.encode(x) == every.tobytes()


def test_a_message_is_read_where_it_lies() -> None:
    x = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    message = bytearray(b"\x0a" + x.numpy().tobytes())
    found = codec().decode(memoryview(message)[1:], x.shape)
    assert torch.equal(found, x)
    message[1:] = bytes(len(message) - 1)
    assert torch.equal(found, x)


def test_a_raw_tensor_is_a_view_of_the_samples() -> None:
    x = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    raw = codec().encode(x)
    assert raw == x.numpy().tobytes()
    assert np.shares_memory(np.frombuffer(raw, np.uint8), x.numpy())
    assert memoryview(raw).readonly
