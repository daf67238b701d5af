"""One model's defence: whether it is to be scored, and whether it can be."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from proxy.config import Model
from proxy.defence import Defence
from proxy.metrics import Metrics

SCORED = Model.model_validate({"detectors": [{"name": "residual"}], "calibration": "x"})


@pytest.mark.parametrize(
    ("model", "wants", "ready"),
    [(None, False, True), (Model(), False, True), (SCORED, True, False)],
)
def test_what_is_not_to_be_scored_is_always_ready(
    model: Model | None, wants: bool, ready: bool
) -> None:
    defence = Defence("m", model, Metrics(CollectorRegistry()).model("m"), "refuse")
    assert (defence.wants_scoring, defence.is_ready) == (wants, ready)
    assert not defence.refused
