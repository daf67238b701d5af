from __future__ import annotations

from typing import Any

import pytest

from proxy.config import Model
from proxy.errors import ConfigError
from proxy.parts import build_detectors, build_purifiers


def model(**fields: Any) -> Model:
    return Model.model_validate({"calibration": "c", **fields})


def test_parts_come_in_the_order_of_the_configuration_with_their_parameters() -> None:
    configured = model(
        detectors=[{"name": "margin"}, {"name": "residual"}],
        purifiers=[{"name": "median", "params": {"size": 3}}, {"name": "bit_depth"}],
    )
    assert [part.name for part in build_detectors(configured)] == ["margin", "residual"]
    keys = [part.key for part in build_purifiers(configured)]
    assert keys == ["median(size=3)", "bit_depth(bits=5)"]


@pytest.mark.parametrize("build", [build_detectors, build_purifiers])
def test_unknown_parts_are_told(build: Any) -> None:
    part = [{"name": "unheard_of"}]
    with pytest.raises(ConfigError, match="unheard_of"):
        build(model(detectors=part, purifiers=part))


def test_values_out_of_range_are_told() -> None:
    with pytest.raises(ConfigError, match="size must be 2 or 3"):
        build_purifiers(model(purifiers=[{"name": "median", "params": {"size": 9}}]))
