"""The section `drift` of a model's entry."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config import Model
from proxy.drift.settings import Drift


def test_it_watches_and_does_nothing_by_default() -> None:
    drift = Model().drift
    assert drift.enabled
    assert drift.on_alarm == "none"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("windows", {"count": 10}),
        ("windows", {"minutes": 0}),
        ("false_alarm_days", 0),
        ("false_alarm_days", float("nan")),
        ("least_distance", 1),
        ("on_alarm", "block"),
        ("widen_to", 1),
        ("clear_after", 0),
        ("max_suspend_hours", float("inf")),
        ("unknown", 1),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Drift.model_validate({field: value})
