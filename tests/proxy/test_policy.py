"""Pass only on proof; what each mode and action does with what was found."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Model
from proxy.flow import Action, SampleVerdict, Verdict
from proxy.policy import decide, has_failed, judge

PASS, SUSPICIOUS, FAILED = Verdict


def samples(*verdicts: Verdict) -> list[SampleVerdict]:
    return [SampleVerdict(verdict, 0.0, 0.0, {}) for verdict in verdicts]


def model(action: str) -> Model:
    return Model.model_validate({"action": action, "purifiers": [{"name": "median"}]})


@pytest.mark.parametrize(
    ("score", "threshold", "verdict"),
    [
        (1.0, 2.0, PASS),
        (2.0, 2.0, PASS),
        (2.0 + 1e-9, 2.0, SUSPICIOUS),
        (math.inf, 2.0, SUSPICIOUS),
        (-math.inf, 2.0, PASS),
        (math.nan, 2.0, FAILED),
        (1.0, math.nan, FAILED),
        (math.nan, math.nan, FAILED),
    ],
)
def test_the_verdict_on_a_score(score: float, threshold: float, verdict: Verdict) -> None:
    assert judge(score, threshold) is verdict


@given(st.floats(), st.floats())
def test_only_a_score_at_or_under_the_threshold_passes(score: float, threshold: float) -> None:
    assert (judge(score, threshold) is PASS) == (score <= threshold)


@pytest.mark.parametrize(
    ("action", "in_sequence", "expected"),
    [
        ("flag", False, Action.FLAG),
        ("flag", True, Action.FLAG),
        ("purify", False, Action.PURIFY),
        ("purify", True, Action.PURIFY),
        ("block", False, Action.BLOCK),
        ("block", True, Action.FLAG),
    ],
)
def test_one_suspicious_sample_is_enough(action: str, in_sequence: bool, expected: Action) -> None:
    for found in (samples(SUSPICIOUS), samples(PASS, SUSPICIOUS), samples(SUSPICIOUS, FAILED)):
        assert decide(found, model(action), in_sequence=in_sequence) is expected


@pytest.mark.parametrize("action", ["flag", "purify", "block"])
@pytest.mark.parametrize("found", [[], samples(PASS, PASS), samples(FAILED), samples(PASS, FAILED)])
def test_nothing_suspicious_is_left_alone(action: str, found: list[SampleVerdict]) -> None:
    assert decide(found, model(action), in_sequence=False) is Action.NONE


def test_a_failed_sample_is_noticed_whatever_the_others_are() -> None:
    assert has_failed(samples(FAILED))
    assert has_failed(samples(PASS, SUSPICIOUS, FAILED))
    assert not has_failed(samples(PASS, SUSPICIOUS))
    assert not has_failed([])
