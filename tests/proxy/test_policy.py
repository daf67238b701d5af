"""Pass only on proof; what each mode and action does with what was found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Model
from proxy.flow import Action, SampleVerdict, Verdict
from proxy.policy import decide, failure, judge, targets

PASS, SUSPICIOUS, FAILED = Verdict


def samples(*verdicts: Verdict) -> list[SampleVerdict]:
    return [SampleVerdict(verdict, 0.0, 0.0, {}) for verdict in verdicts]


def model(action: str, series: str = "flag") -> Model:
    return Model.model_validate(
        {
            "action": action,
            "purifiers": [{"name": "median"}],
            "detectors": [{"name": "history"}],
            "calibration": "folder",
            "query_attacks": {"action": series},
        }
    )


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
    failed = [replace(each, reason="budget") for each in samples(FAILED)]
    assert failure(failed) == "budget"
    assert failure([*samples(PASS, SUSPICIOUS), *failed]) == "budget"
    assert failure(samples(PASS, FAILED)) == "error", "without a reason it is still a failure"
    assert failure(samples(PASS, SUSPICIOUS)) == ""
    assert failure([]) == ""


@pytest.mark.parametrize(
    ("single", "series", "expected"),
    [
        ("flag", "flag", Action.FLAG),
        ("flag", "purify", Action.PURIFY),
        ("flag", "decoy", Action.DECOY),
        ("purify", "decoy", Action.DECOY),
        ("purify", "flag", Action.PURIFY),
        ("decoy", "block", Action.BLOCK),
        ("block", "decoy", Action.BLOCK),
    ],
)
def test_the_stronger_of_two_actions_is_taken(single: str, series: str, expected: Action) -> None:
    found = [SampleVerdict(SUSPICIOUS, 0.0, 0.0, {}, alarm=True)]
    if single == "decoy":  # no action for single requests
        found = [SampleVerdict(PASS, 0.0, 0.0, {}, alarm=True)]
        single = "flag"
    assert decide(found, model(single, series), in_sequence=False) is expected


@pytest.mark.parametrize("series", ["flag", "purify", "decoy", "block"])
def test_an_alarm_is_acted_on_although_the_sample_looks_clean(series: str) -> None:
    found = [*samples(PASS), SampleVerdict(PASS, 0.0, 0.0, {}, alarm=True)]
    action = decide(found, model("flag", series), in_sequence=False)
    assert action is Action(series)
    assert targets(found, action) == ((0, 1) if series == "decoy" else (1,))


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("flag", Action.FLAG),
        ("purify", Action.FLAG),  # nothing of this request to purify
        ("decoy", Action.DECOY),
        ("block", Action.BLOCK),
    ],
)
def test_quarantine_needs_nothing_suspicious(series: str, expected: Action) -> None:
    found = samples(PASS, PASS)
    subject = model("flag", series)
    assert decide(found, subject, in_sequence=False) is Action.NONE
    assert decide(found, subject, in_sequence=False, quarantined=True) is expected


def test_a_sequence_is_not_cut_by_quarantine_either() -> None:
    subject = model("flag", "block")
    assert decide(samples(PASS), subject, in_sequence=True, quarantined=True) is Action.FLAG


@pytest.mark.parametrize("action", ["flag", "purify", "block"])
def test_samples_that_are_spared_are_flagged_at_most(action: str) -> None:
    found = samples(PASS, SUSPICIOUS, SUSPICIOUS)
    subject = model(action)
    assert decide(found, subject, in_sequence=False, spared={1, 2}) is Action.FLAG
    assert decide(found, subject, in_sequence=False, spared={0, 1}) is Action(action)
    assert decide(samples(PASS), subject, in_sequence=False, spared={0}) is Action.NONE


@pytest.mark.parametrize("series", ["purify", "decoy", "block"])
def test_an_alarm_is_acted_on_whoever_is_spared(series: str) -> None:
    found = [SampleVerdict(SUSPICIOUS, 0.0, 0.0, {}, alarm=True)]
    assert decide(found, model("flag", series), in_sequence=False, spared={0}) is Action(series)
