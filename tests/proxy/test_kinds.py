"""Every kind of input has its codec."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from proxy.adapt import ModelSpec
from proxy.config import InputKind
from proxy.kinds import codec_of
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
