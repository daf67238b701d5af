"""What differs between two configurations, as people read it."""

from __future__ import annotations

from typing import Any

from proxy.config import Config
from proxy.control.differences import MAX_CHANGES, changes, differences

MARGIN = {"name": "margin"}
ENERGY = {"name": "energy"}
CNN = {"calibration": "c", "detectors": [MARGIN]}


def told(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return changes(differences(Config.model_validate(old), Config.model_validate(new)))


def test_settings_of_models_go_by_the_models_name() -> None:
    assert told({"models": {"cnn": CNN}}, {"models": {"cnn": {**CNN, "fpr": 0.02}}}) == [
        "cnn.fpr: 0.01 -> 0.02"
    ]


def test_defaults_that_are_said_are_no_difference() -> None:
    assert told({}, {"listen": "0.0.0.0:8101", "audit": {}}) == []


def test_nested_settings_and_optional_sections() -> None:
    old = {"models": {"cnn": CNN}, "history": {"capacity": 5}}
    new = {
        "models": {"cnn": {**CNN, "cascade": {}}},
        "history": {"capacity": 6},
        "max_in_flight": 7,
    }
    assert sorted(told(old, new)) == [
        'cnn.cascade: null -> {"clean": 0.5, "suspicious": 0.001}',
        "history.capacity: 5 -> 6",
        "max_in_flight: 1024 -> 7",
    ]


def test_parts_that_come_and_go_and_those_that_change() -> None:
    def parts(*detectors: dict[str, Any]) -> dict[str, Any]:
        return {"models": {"cnn": {"calibration": "c", "detectors": detectors}}}

    assert told(parts(MARGIN), parts(ENERGY, MARGIN)) == ["cnn.detectors: +energy"]
    assert told(parts(MARGIN), parts(ENERGY)) == ["cnn.detectors: -margin +energy"]
    (order,) = told(parts(MARGIN, ENERGY), parts(ENERGY, MARGIN))
    assert order.startswith('cnn.detectors: [{"name": "margin", "params": {}}, ')
    assert order.endswith("...")


def test_models_that_come_and_go() -> None:
    assert told({"models": {"a": {}}}, {"models": {"b": {"mode": "enforce"}}}) == [
        "a: removed: its requests pass as those of an unlisted model",
        "b: added, mode enforce, action flag",
    ]


def test_a_long_list_is_cut() -> None:
    new = {"models": {f"m{i}": {} for i in range(MAX_CHANGES + 5)}}
    lines = told({}, new)
    assert (len(lines), lines[-1]) == (MAX_CHANGES + 1, "... and 5 more")
