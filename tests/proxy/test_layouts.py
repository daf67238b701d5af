"""Where the axes of vectors and waveforms are; images are in test_adapt, through `resolve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from proxy.adapt import ModelSpec
from proxy.config import Input
from proxy.errors import ConfigError
from proxy.layouts import scale_of
from proxy.pb import open_inference_pb2 as pb
from tests.proxy.test_adapt import spec

BATCHED = pb.ModelConfig(max_batch_size=8)


def found(kind: str, shape: Sequence[int], *, batched: bool, **fields: Any) -> ModelSpec:
    datatype = fields.pop("datatype", "FP32")
    config = BATCHED if batched else pb.ModelConfig()
    return spec(shape, datatype=datatype, config=config, inputs=[{"kind": kind, **fields}])


@pytest.mark.parametrize(
    ("kind", "shape", "batched", "layout", "limit"),
    [
        ("vector", (-1, 30), True, "ND", 8),
        ("vector", (-1, 30), False, "ND", 64),
        ("vector", (-1, 4, 8), True, "ND", 8),
        ("vector", (30,), False, "D", 1),
        ("vector", (4, 8), False, "D", 1),
        ("waveform", (-1, 16000), True, "NT", 8),
        ("waveform", (-1, -1), False, "NT", 64),
        ("waveform", (-1, 1, -1), False, "NCT", 64),
        ("waveform", (-1, 2, 16000), True, "NCT", 8),
        ("waveform", (1, 2, 16000), False, "NCT", 1),
        ("waveform", (2, 16000), False, "CT", 1),
        ("waveform", (-1,), False, "T", 1),
    ],
)
def test_the_layout_follows_from_the_shape(
    kind: str, shape: Sequence[int], batched: bool, layout: str, limit: int
) -> None:
    subject = found(kind, shape, batched=batched)
    assert (subject.kind, subject.layout, subject.batch_limit) == (kind, layout, limit)
    assert subject.has_batch_axis is layout.startswith("N")


@pytest.mark.parametrize(
    ("kind", "shape", "layout"),
    [
        ("vector", (4, 8), "ND"),
        ("vector", (4, 8), "D"),
        ("waveform", (4, 16000), "NT"),
        ("waveform", (-1, 16000), "CT"),
    ],
)
def test_a_layout_given_wins(kind: str, shape: Sequence[int], layout: str) -> None:
    assert found(kind, shape, batched=False, layout=layout).layout == layout


@pytest.mark.parametrize(
    ("kind", "shape", "fields", "message"),
    [
        ("vector", (-1, -1), {}, "all axes but the batch must be fixed"),
        ("vector", (-1,), {}, "all axes but the batch must be fixed"),
        ("vector", (), {}, "all axes but the batch must be fixed"),
        ("vector", (4, 0), {}, "all axes but the batch must be fixed"),
        ("vector", (30,), {"layout": "ND"}, "layout ND does not fit image's shape"),
        ("vector", (-1, 30), {"datatype": "INT64"}, "image is INT64; vectors may be FP32, FP16"),
        ("vector", (-1, 30), {"datatype": "BYTES"}, "vectors may be FP32, FP16, BF16, FP64$"),
        ("waveform", (-1, 1), {"datatype": "INT8"}, "waveforms may be FP32, FP16, INT16"),
        ("waveform", (-1, 1, 2, 3), {}, "waveforms are .batch, samples."),
        ("waveform", (-1, 16000), {"layout": "NCT"}, "layout NCT does not fit image's shape"),
    ],
)
def test_a_contradiction_names_the_field(
    kind: str, shape: Sequence[int], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"models\.m\.inputs: .*{message}"):
        found(kind, shape, batched=False, **fields)


@pytest.mark.parametrize(
    ("kind", "shape", "fields", "message"),
    [
        ("vector", (-1, 30), {"layout": "D"}, "so layout D does not fit"),
        ("waveform", (-1, 160), {"layout": "CT"}, "so layout CT does not fit"),
        ("waveform", (-1,), {}, "waveforms are .batch, samples."),
        ("image", (3, 8, 8), {}, "so layout CHW does not fit"),
    ],
)
def test_a_batched_model_needs_a_layout_with_a_batch_axis(
    kind: str, shape: Sequence[int], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        found(kind, shape, batched=True, **fields)


@pytest.mark.parametrize(
    ("fields", "datatype", "ends"),
    [
        ({"kind": "waveform"}, "FP32", (-1, 1)),
        ({"kind": "waveform"}, "INT16", (-32768, 32768)),
        ({"kind": "waveform", "range": (0, 4)}, "FP32", (0, 4)),
        ({"kind": "vector"}, "FP32", (0, 1)),
        ({}, "UINT8", (0, 255)),
    ],
)
def test_the_ends_of_the_range(
    fields: dict[str, Any], datatype: str, ends: tuple[float, float]
) -> None:
    assert scale_of(Input(**fields), datatype) == ((ends[0],), (ends[1],))
