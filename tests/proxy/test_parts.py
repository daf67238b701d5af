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


MEDIAN = {"name": "median", "params": {"size": 3}}
DIM = {"name": "bit_depth", "params": {}}


def view_of(configured: Model) -> list[str]:
    (part,) = build_detectors(configured)
    return [view.key for view in part.views]


def test_a_purified_view_is_of_the_purifiers_that_would_be_served() -> None:
    view: dict[str, Any] = {"name": "purified_view"}
    assert view_of(model(detectors=[view], purifiers=[MEDIAN])) == ["median(size=3)"]
    chained = view_of(model(detectors=[view], purifiers=[MEDIAN, DIM]))
    assert chained == ["median(size=3) > bit_depth(bits=5)"]
    own = {**view, "params": {"purifiers": [DIM], "temperature": 3}}
    assert view_of(model(detectors=[own], purifiers=[MEDIAN])) == ["bit_depth(bits=5)"]
    other = {**view, "params": {"temperature": 3}}
    assert view_of(model(detectors=[other], purifiers=[MEDIAN])) == ["median(size=3)"]
    with pytest.raises(ConfigError, match="no purifiers to compare with; give the model some"):
        build_detectors(model(detectors=[view]))


def test_only_random_purifiers_make_copies_that_differ() -> None:
    fields = {"action": "purify", "aggregate": {"copies": 4}}
    with pytest.raises(ConfigError, match=r"median would make 4 equal copies.*resize_pad"):
        build_purifiers(model(purifiers=[MEDIAN], **fields))
    parts = build_purifiers(model(purifiers=[MEDIAN, {"name": "resize_pad"}], **fields))
    assert [part.is_random for part in parts] == [False, True]
