"""Settings changed in the text: what was asked and no other byte."""

from __future__ import annotations

import difflib
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.edits import MAX_SETTINGS, edited, value_of
from proxy.control.errors import ControlError, ImpossibleError, InvalidAskError

TEXT = """\
# The policy.
listen: 0.0.0.0:8101      # (restart)

models:
  # The classifier.
  cnn:   # of digits
    # How often it may cry wolf.
    fpr: 0.01   # share
    mode: "observe"
    detectors:   # evidence
    - name: margin   # cheap
    - name: energy   # cheap, too

  # --- The others ---
  vit: {fpr: 0.5, mode: observe}
  none:
  empty: {}   # nothing yet
  1:
    calibration: >
      some
      folder

# The end.
history: {capacity: 100}
"""


def changed(text: str, model: str, settings: dict[str, Any]) -> list[str]:
    """The lines that differ, with - and +."""
    fresh = edited(text, model, settings)
    lines = difflib.ndiff(text.splitlines(), fresh.splitlines())
    return [line for line in lines if line[0] in "-+"]


@pytest.mark.parametrize(
    ("model", "settings", "lines"),
    [
        ("cnn", {"fpr": 0.02}, ["-     fpr: 0.01   # share", "+     fpr: 0.02   # share"]),
        ("cnn", {"mode": "enforce"}, ['-     mode: "observe"', "+     mode: enforce"]),
        ("cnn", {"action": "block"}, ["+     action: block"]),
        (
            "cnn",
            {"detectors": [{"name": "margin", "params": {"off": "off"}}]},
            [
                "-     detectors:   # evidence",
                "-     - name: margin   # cheap",
                "-     - name: energy   # cheap, too",
                '+     detectors: [{name: margin, params: {"off": "off"}}]   # evidence   '
                "# cheap, too",
            ],
        ),
        (
            "cnn",
            {"detectors.1.name": "entropy"},
            ["-     - name: energy   # cheap, too", "+     - name: entropy   # cheap, too"],
        ),
        (
            "cnn",
            {"query_attacks.action": "block"},
            ["+     query_attacks: {action: block}"],
        ),
        (
            "vit",
            {"fpr": 0.1, "action": "flag"},
            [
                "-   vit: {fpr: 0.5, mode: observe}",
                "+   vit: {action: flag, fpr: 0.1, mode: observe}",
            ],
        ),
        ("none", {"fpr": 0.1}, ["-   none:", "+   none: {fpr: 0.1}"]),
        (
            "empty",
            {"cascade": None},
            ["-   empty: {}   # nothing yet", "+   empty: {cascade: null}   # nothing yet"],
        ),
        (
            "1",
            {"calibration": "a b"},
            ["-     calibration: >", '+     calibration: "a b"', "-       some", "-       folder"],
        ),
    ],
)
def test_only_what_was_asked_changes(
    model: str, settings: dict[str, Any], lines: list[str]
) -> None:
    assert sorted(changed(TEXT, model, settings)) == sorted(lines)


def test_several_settings_in_windows_lines() -> None:
    text = TEXT.replace("\n", "\r\n")
    fresh = edited(text, "cnn", {"fpr": 0.5, "mode": "enforce"})
    assert fresh == text.replace("0.01", "0.5").replace('"observe"', "enforce")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["off", "no", "1e3", "0x1", "1:30", "~", "", " a", "a: b", "# c", "2020-01-01"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["cnn", "vit", "none", "empty", "1"]), st.sampled_from(["fpr", "x"]), values)
def test_any_value_comes_back_as_it_was(model: str, key: str, value: Any) -> None:
    fresh = edited(TEXT, model, {key: value})
    found = yaml.safe_load(fresh)
    entry = found["models"][int(model) if model == "1" else model]
    assert same(entry.pop(key), value)
    before = yaml.safe_load(TEXT)
    now = before["models"][int(model) if model == "1" else model] or {}
    now.pop(key, None)
    found["models"][int(model) if model == "1" else model] = entry
    before["models"][int(model) if model == "1" else model] = now
    assert found == before


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float):
        return type(found) is float and (
            found == wanted or (math.isnan(found) and math.isnan(wanted))
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[k], v) for k, v in wanted.items())
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give 1 to 64 settings"),
        ({f"k{i}": 1 for i in range(MAX_SETTINGS + 1)}, "give 1 to 64 settings"),
        ({"fpr: 1\nlisten": 2}, "is no setting"),
        ({"": 1}, "is no setting"),
        ({"query_attacks.": 1}, "is no setting"),
        ({"<<": 1}, "is no setting"),
        ({"detectors.2.name": "x"}, "there is no entry 2: the list has 2"),
        ({"detectors.name": "x"}, "there is no entry name"),
        ({"fpr.x": 1}, "there is no such setting here, only a value"),
        ({"x": object()}, "a setting cannot be a object"),
    ],
)
def test_what_cannot_be_written_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidAskError, match=said):
        edited(TEXT, "cnn", settings)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("models: {a: &a {fpr: 0.1}, cnn: *a}", {"fpr": 0.2}),
        ("x: &x 0.1\nmodels: {cnn: {fpr: *x}}", {"fpr": 0.2}),
        ("x: &x {}\nmodels:\n  cnn:\n    <<: *x\n", {"query_attacks.fpr": 0.2}),
        ("x: &x 1\nmodels:\n  cnn:\n    a:\n    - 1\n    - *x\n", {"a": 2}),
        ("models:\n  cnn:\n    ? fpr # how often\n    :\n      0.1\n", {"fpr": 0.2}),
    ],
)
def test_what_is_written_in_another_place_is_left_to_people(
    text: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(ImpossibleError, match="edit the file itself"):
        edited(text, "cnn", settings)


def test_a_setting_wins_over_one_that_is_merged() -> None:
    text = "x: &x {fpr: 0.1}\nmodels:\n  cnn:\n    <<: *x\n"
    assert yaml.safe_load(edited(text, "cnn", {"fpr": 0.2}))["models"]["cnn"]["fpr"] == 0.2


def test_values_are_read_as_in_the_file() -> None:
    assert value_of("a", "[{name: margin}, 1e-3, off]") == [{"name": "margin"}, "1e-3", False]
    assert value_of("a", "") is None
    for text in ("[", "!!python/object:os.system {}", "\0", "[" * 5000, "2020-99-99"):
        with pytest.raises(InvalidAskError, match="a: the value is not valid YAML"):
            value_of("a", text)


def test_every_error_has_its_statuses() -> None:
    assert issubclass(ImpossibleError, ControlError)
    assert (ImpossibleError.code, ImpossibleError.http) == ("FAILED_PRECONDITION", 409)
