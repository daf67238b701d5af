"""Every kind of input has its codec, and its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from proxy.adapt import ModelSpec
from proxy.config import InputKind, Model
from proxy.errors import ConfigError
from proxy.kinds import codec_of
from proxy.parts import build_detectors, build_purifiers
from purifiers.base import Kind, kind_of
from tests.proxy.test_tensors import SPEC
from tests.proxy.test_vectors import ROWS
from tests.proxy.test_waveforms import SOUND

SPECS = [replace(SPEC, shape=(-1, 1, 2, 3)), ROWS, SOUND]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_what_is_decoded_is_of_the_kind(spec: ModelSpec) -> None:
    shape = tuple(2 if size == -1 else size for size in spec.shape)
    size = 4
    for axis in shape:
        size *= axis
    assert kind_of(codec_of(spec).decode(bytes(size), shape)) == Kind(spec.kind)


def test_every_kind_is_there() -> None:
    assert {spec.kind for spec in SPECS} == set(get_args(InputKind)) == set(Kind)


def model(kind: str, **fields: Any) -> Model:
    return Model.model_validate({"inputs": [{"kind": kind}], "calibration": "x", **fields})


def squeezing(*views: dict[str, Any]) -> dict[str, Any]:
    return {"name": "feature_squeezing", "params": {"views": list(views)}}


@pytest.mark.parametrize(
    ("kind", "detectors"),
    [
        ("vector", [{"name": "vector_neighbours"}, {"name": "margin"}]),
        ("vector", [squeezing({"name": "quantise"})]),
        (
            "waveform",
            [squeezing({"name": "smooth"}, {"name": "quantise", "params": {"step": 0.1}})],
        ),
        ("waveform", [{"name": "band_residual"}, {"name": "energy"}]),
        ("image", [{"name": "residual"}, {"name": "feature_squeezing"}]),
    ],
)
def test_parts_of_the_kind_are_taken(kind: str, detectors: list[dict[str, Any]]) -> None:
    found = build_detectors(model(kind, detectors=detectors))
    assert [d.name for d in found] == [part["name"] for part in detectors]


@pytest.mark.parametrize(
    ("kind", "detector", "message"),
    [
        (
            "vector",
            {"name": "residual"},
            "^residual takes images, not vectors; detectors that do: margin, .*vector_mahalanobis",
        ),
        (
            "waveform",
            {"name": "vector_mahalanobis"},
            "takes vectors, not waveforms; detectors that do: .*band_residual",
        ),
        ("image", {"name": "band_residual"}, "takes waveforms, not images"),
        (
            "vector",
            {"name": "feature_squeezing"},
            "feature_squeezing: the view jpeg takes images, not vectors; purifiers that do: quant",
        ),
        (
            "image",
            squeezing({"name": "quantise"}),
            "the view quantise takes vectors and waveforms, not images; purifiers that do: bit_d",
        ),
    ],
)
def test_detectors_of_other_kinds_are_refused(
    kind: str, detector: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_detectors(model(kind, detectors=[detector]))


def test_purifiers_of_other_kinds_are_refused() -> None:
    assert build_purifiers(model("vector", purifiers=[{"name": "quantise"}]))
    with pytest.raises(
        ConfigError, match=r"^smooth takes waveforms, not vectors; purifiers that do: quantise$"
    ):
        build_purifiers(model("vector", purifiers=[{"name": "smooth"}]))
