"""The verdict on a request is the worst over its samples."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest

from proxy.flow import Action, Flow, SampleVerdict, Verdict


def flow(*verdicts: Verdict) -> Flow:
    samples = tuple(SampleVerdict(v, score=1.0, threshold=2.0, p_values={}) for v in verdicts)
    return Flow(request_id="r", arrival_s=0.0, deadline_s=None, principal="p", samples=samples)


def test_a_request_that_was_not_scored_has_no_verdict() -> None:
    assert flow().verdict is None


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ((Verdict.PASS, Verdict.PASS), Verdict.PASS),
        ((Verdict.PASS, Verdict.FAILED), Verdict.FAILED),
        ((Verdict.PASS, Verdict.SUSPICIOUS), Verdict.SUSPICIOUS),
        ((Verdict.FAILED, Verdict.SUSPICIOUS, Verdict.PASS), Verdict.SUSPICIOUS),
    ],
)
def test_the_worst_sample_decides_in_any_order(
    verdicts: tuple[Verdict, ...], worst: Verdict
) -> None:
    for order in itertools.permutations(verdicts):
        assert flow(*order).verdict is worst


def test_a_fresh_flow_has_done_nothing() -> None:
    fresh = flow()
    assert (fresh.action, fresh.outcome, fresh.stage_s) == (Action.NONE, "", {})
    assert fresh.stage_s is not flow().stage_s


def test_the_clients_deadline_bounds_the_model_server() -> None:
    fresh = flow()
    assert fresh.left_s(300.0) == 300.0
    assert 8 < replace(fresh, deadline_s=time.monotonic() + 9).left_s(1.0) <= 9
    assert replace(fresh, deadline_s=time.monotonic() - 1).left_s(1.0) == 0
