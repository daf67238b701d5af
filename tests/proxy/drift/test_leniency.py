"""Which suspicious samples are spared while the traffic drifts."""

from __future__ import annotations

import math

import pytest

from proxy.drift.leniency import spared
from proxy.drift.state import Response
from proxy.flow import SampleVerdict, Verdict

SCORES = (1.0, 2.5, 4.0, math.nan)
SAMPLES = [SampleVerdict(Verdict.SUSPICIOUS, score, 2.0, {}) for score in SCORES]


@pytest.mark.parametrize(
    ("response", "expected"),
    [("none", set()), ("suspend", {0, 1, 2, 3}), ("widen", {0, 1})],
)
def test_by_response(response: Response, expected: set[int]) -> None:
    assert spared(SAMPLES, response, lambda threshold: threshold + 1) == expected
