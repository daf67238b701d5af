"""Completion from Triton's own description; a contradiction names the field to set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from proxy.adapt import ModelSpec, resolve
from proxy.config import Model
from proxy.defences import describe
from proxy.errors import ConfigError
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Upstream
from tuning.triton import EmbeddedTriton

FILES = {"encoded": True, "size": (32, 32)}


@pytest.fixture(scope="module")
async def upstream(triton: EmbeddedTriton) -> AsyncIterator[Upstream]:
    connection = Upstream(triton.grpc_address, max_message_bytes=1 << 20)
    yield connection
    await connection.close()


async def spec_of(upstream: Upstream, name: str, **fields: Any) -> ModelSpec:
    return resolve(name, Model.model_validate(fields), *await describe(upstream, name))


def metadata(
    inputs: Sequence[tuple[str, str, Sequence[int]]], outputs: Sequence[str] = ("logits",)
) -> pb.ModelMetadataResponse:
    Tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        inputs=[Tensor(name=n, datatype=d, shape=s) for n, d, s in inputs],
        outputs=[Tensor(name=name, datatype="FP32", shape=[-1, 10]) for name in outputs],
    )


def spec(
    shape: Sequence[int],
    *,
    datatype: str = "FP32",
    config: pb.ModelConfig | None = None,
    outputs: Sequence[str] = ("logits",),
    **fields: Any,
) -> ModelSpec:
    described = metadata([("image", datatype, shape)], outputs)
    return resolve("m", Model.model_validate(fields), described, config)


@pytest.mark.triton
@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        (
            "digits_like",
            {},
            {
                **{"input": "image", "datatype": "FP32", "layout": "NCHW", "output": "logits"},
                **{"shape": (-1, 3, 32, 32), "low": (0.0,), "high": (1.0,)},
                **{"batch_limit": 64, "max_batch": 64, "output_kind": "logits"},
                **{"stateful": False, "may_be_stateful": False, "decoupled": False},
                **{"has_batch_axis": True, "can_query": True, "ignored_inputs": ()},
                "versions": ("1",),
            },
        ),
        (
            "digits_like_probabilities",
            {"output": {"kind": "probabilities"}},
            {"output": "probabilities", "output_kind": "probabilities"},
        ),
        (
            "digits_like_nhwc_uint8",
            {},
            {"layout": "NHWC", "datatype": "UINT8", "low": (0.0,), "high": (255.0,)},
        ),
        ("digits_like_fp16", {}, {"layout": "NCHW", "datatype": "FP16", "high": (1.0,)}),
        (
            "encoded",
            {"inputs": [FILES]},
            {
                **{"layout": None, "datatype": "BYTES", "encoded": True, "size": (32, 32)},
                **{"has_batch_axis": True, "batch_limit": 64, "shape": (-1, 1)},
            },
        ),
        (
            "identity_fp32",
            {"inputs": [{"layout": "NCHW"}], "output": {"kind": "none"}},
            {"output": None, "output_kind": "none", "shape": (-1, -1, -1, -1)},
        ),
        ("identity_bytes", {"inputs": [FILES]}, {"batch_limit": 64, "max_batch": None}),
        (
            "repeat",
            {
                "inputs": [{"name": "image"}, {"name": "count", "inspect": False}],
                "output": {"kind": "none"},
            },
            {
                **{"layout": "CHW", "decoupled": True, "can_query": False, "batch_limit": 1},
                **{"ignored_inputs": ("count",), "has_batch_axis": False},
            },
        ),
        (
            "sequence_sum",
            {"output": {"name": "sum"}},
            {"layout": "CHW", "stateful": True, "can_query": False, "output": "sum"},
        ),
        (
            "slow",
            {"inputs": [{"name": "delay_ms", "inspect": False}]},
            {"input": "image", "layout": "NCHW", "ignored_inputs": ("delay_ms",)},
        ),
    ],
)
async def test_completed_from_triton(
    upstream: Upstream, name: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = await spec_of(upstream, name, **fields)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.triton
@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("all_types", {}, "name the image and list every other input"),
        ("slow", {"inputs": [{"name": "image"}]}, "delay_ms would pass unseen"),
        ("slow", {"inputs": [{"name": "delay_ms"}]}, "image would pass unseen"),
        (
            "slow",
            {"inputs": [{"name": "image", "inspect": False}]},
            "delay_ms is INT32; images may be",
        ),
        ("identity_bytes", {}, "text is BYTES.*set encoded: true"),
        ("digits_like", {"inputs": [FILES]}, "image is FP32, so it cannot be encoded"),
        ("identity_fp32", {}, "cannot tell the layout.*set layout"),
        ("digits_like", {"inputs": [{"name": "x"}]}, "declares no input x; it declares image"),
        ("digits_like", {"inputs": [{"layout": "CHW"}]}, "layout CHW does not fit"),
        ("digits_like", {"inputs": [{"layout": "NHWC"}]}, "has 32 channels"),
        ("sequence_sum", {}, r"declares sum, steps; set name"),
        ("digits_like", {"output": {"name": "x"}}, "declares no output x; it declares logits"),
    ],
)
async def test_a_contradiction_names_the_field(
    upstream: Upstream, name: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"models\.{name}\.(in|out)puts?: .*{message}"):
        await spec_of(upstream, name, **fields)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((-1, 3, 8, 8), "NCHW"),
        ((-1, 1, -1, -1), "NCHW"),
        ((-1, 8, 8, 3), "NHWC"),
        ((3, 8, 8), "CHW"),
        ((8, 8, 1), "HWC"),
    ],
)
def test_the_layout_follows_from_where_the_channels_are(shape: Sequence[int], layout: str) -> None:
    assert spec(shape).layout == layout


@pytest.mark.parametrize(
    ("given", "shape", "layout"),
    [
        (pb.ModelInput.FORMAT_NCHW, (-1, -1, -1, -1), "NCHW"),
        (pb.ModelInput.FORMAT_NHWC, (-1, -1, -1, -1), "NHWC"),
        (pb.ModelInput.FORMAT_NCHW, (-1, -1, -1), "CHW"),
        (pb.ModelInput.FORMAT_NHWC, (-1, -1, -1), "HWC"),
    ],
)
def test_tritons_format_decides(given: Any, shape: Sequence[int], layout: str) -> None:
    config = pb.ModelConfig()
    config.input.add(name="image", format=given)
    assert spec(shape, config=config).layout == layout


@pytest.mark.parametrize("shape", [(3, 8, 3), (-1, 3, 8, 3), (-1, 8), (-1, 8, 8, 8)])
def test_what_cannot_be_told_is_asked_for(shape: Sequence[int]) -> None:
    with pytest.raises(ConfigError, match=r"models\.m\.inputs: .*set layout"):
        spec(shape)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout": "HWC"}, "layout HWC does not fit image's shape"),
        ({"layout": "NHWC"}, "with layout NHWC, image .* has 8 channels; images have 1 or 3"),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "image has 1 channels, but mean and std have 3"),
    ],
)
def test_the_layout_must_agree_with_the_shape(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"models\.m\.inputs: {message}"):
        spec((-1, 1, 8, 8), inputs=[fields])


def test_a_batched_model_needs_a_layout_with_a_batch_axis() -> None:
    batched = pb.ModelConfig(max_batch_size=4)
    with pytest.raises(ConfigError, match="has a batch axis, so layout CHW does not fit"):
        spec((-1, 3, 8), inputs=[{"layout": "CHW"}], config=batched)


@pytest.mark.parametrize("shape", [(-1, 2), (-1, 1, 1), ()])
def test_files_come_one_a_sample(shape: Sequence[int]) -> None:
    with pytest.raises(ConfigError, match="encoded images come one a sample"):
        spec(shape, datatype="BYTES", inputs=[FILES])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([{"inspect": False}], "inspect: false needs a name"),
        ([{"name": "image"}, {"name": "image", "inspect": False}], "image is listed twice"),
    ],
)
def test_an_input_is_listed_once_and_by_name(inputs: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"models\.m\.inputs: .*{message}"):
        spec((-1, 3, 8, 8), inputs=inputs)


def test_a_named_input_is_found_among_others() -> None:
    described = metadata([("mask", "UINT8", (-1, 8)), ("image", "INT8", (-1, 3, 8, 8))])
    inputs = [{"name": "image"}, {"name": "mask", "inspect": False}]
    found = resolve("m", Model.model_validate({"inputs": inputs}), described, None)
    assert (found.input, found.low, found.high) == ("image", (-128.0,), (127.0,))


def test_mean_and_std_become_the_wire_values_of_black_and_white() -> None:
    found = spec((-1, 3, 8, 8), inputs=[{"mean": (0.5, 0.4, 0.2), "std": (0.5, 0.2, 0.1)}])
    assert found.low == pytest.approx((-1.0, -2.0, -2.0))
    assert found.high == pytest.approx((1.0, 3.0, 8.0))


def test_a_range_wins_over_the_default() -> None:
    assert spec((-1, 3, 8, 8), inputs=[{"range": (-1, 1)}]).low == (-1.0,)


@pytest.mark.parametrize(
    ("config", "limit", "bound"),
    [
        (pb.ModelConfig(max_batch_size=4), 4, 4),
        (pb.ModelConfig(), 64, None),
        (None, 64, None),
    ],
)
def test_the_batch_limit(config: pb.ModelConfig | None, limit: int, bound: int | None) -> None:
    found = spec((-1, 3, 8, 8), config=config)
    assert (found.batch_limit, found.max_batch) == (limit, bound)


def test_a_fixed_batch_is_asked_as_it_is() -> None:
    assert spec((1, 3, 8, 8), config=pb.ModelConfig()).batch_limit == 1


def test_state_that_cannot_be_ruled_out_is_said_to_be_possible() -> None:
    assert spec((-1, 3, 8, 8), config=None).may_be_stateful
    ensemble = pb.ModelConfig(ensemble_scheduling=pb.ModelEnsembling())
    assert spec((-1, 3, 8, 8), config=ensemble).may_be_stateful
    assert not spec((-1, 3, 8, 8), config=pb.ModelConfig()).may_be_stateful


def test_several_outputs_need_a_choice() -> None:
    with pytest.raises(ConfigError, match="declares a, b; set name"):
        spec((-1, 3, 8, 8), outputs=("a", "b"))
    assert spec((-1, 3, 8, 8), outputs=("a", "b"), output={"name": "b"}).output == "b"
