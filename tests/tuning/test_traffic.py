"""Requests made of data, and of nothing but a model's shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from proxy import wire
from proxy.adapt import ModelSpec
from proxy.errors import ConfigError
from tuning.traffic import requests

SPEC = ModelSpec(
    model="m",
    input="image",
    datatype="FP32",
    layout="NCHW",
    shape=(-1, 3, 16, 24),
    low=(0.0,),
    high=(1.0,),
    tolerance=0.02,
    encoded=False,
    size=None,
    max_pixels=1_000_000,
    ignored_inputs=(),
    output="logits",
    output_kind="logits",
    batch_limit=8,
    max_batch=8,
    stateful=False,
    may_be_stateful=False,
    decoupled=False,
    versions=("1",),
)


def test_the_users_samples_are_sent_one_a_request(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 24), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    made = requests(SPEC, tmp_path / "x.npz")
    assert len(made) == 5
    for message, image in zip(made, x, strict=True):
        request = wire.InferRequest.parse(message)
        assert [output.name for output in request.head.outputs] == ["logits"]
        sent = wire.as_numpy(request.tensors[0])
        np.testing.assert_array_equal(sent, image[None].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (SPEC, (1, 3, 16, 24)),
        (replace(SPEC, layout="NHWC", shape=(-1, 16, 24, 3)), (1, 16, 24, 3)),
        (replace(SPEC, layout="CHW", shape=(1, 16, 24)), (1, 16, 24)),
        (replace(SPEC, datatype="UINT8", high=(255.0,)), (1, 3, 16, 24)),
    ],
)
def test_random_images_have_the_models_shape(spec: ModelSpec, shape: tuple[int, ...]) -> None:
    made = requests(spec, None)
    assert len(set(made)) == len(made)
    assert wire.InferRequest.parse(made[0]).tensors[0].shape == shape
    assert made == requests(spec, None)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (replace(SPEC, shape=(-1, 3, -1, -1)), "images of any size"),
        (replace(SPEC, kind="vector", layout="ND", shape=(-1, 4)), "takes vectors: give some"),
        (replace(SPEC, ignored_inputs=("mask",)), "takes mask besides the image"),
    ],
)
def test_what_cannot_be_made_up_is_asked_for(spec: ModelSpec, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        requests(spec, None)


def test_samples_that_do_not_fit_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1, 4, 4), np.uint8))
    with pytest.raises(ConfigError, match=r"the images do not fit model m: .*\[1, 1, 4, 4\]"):
        requests(SPEC, tmp_path / "x.npz")
