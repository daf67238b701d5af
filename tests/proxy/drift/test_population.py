"""One model's traffic as a whole: what counts, what it costs, what is found out."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from proxy.drift.population import MOST_WAITING, Population, alarming
from proxy.drift.state import State
from proxy.flow import Flow, SampleVerdict, Verdict
from tests.proxy.drift.monitored import HOUR_S, Clock
from tests.proxy.drift.samples import SUBJECT, flow, population

COUNT = 400
SMALL = {"windows": {"count": COUNT, "minutes": 10_080}, "false_alarm_days": 1}


def look(subject: Population, clock: Clock) -> State:
    """Let an hour pass, look and adopt what is found."""
    clock.now_s += HOUR_S
    export = subject.export(subject.take(), clock.now_s)
    subject.adopt(subject.judged([export], subject.state, clock.now_s), clock.now_s)
    return subject.state


def fill(subject: Population, seed: int, **facts: float) -> None:
    """Half a window of a hundred principals."""
    rng = np.random.default_rng(seed)
    for i in range(COUNT // 8):
        subject.add(flow(rng, f"client-{i}", 4, **facts))  # type: ignore[arg-type]


def test_a_shift_of_the_scores_is_found_and_named() -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    fill(subject, 0)
    assert not look(subject, clock).is_drifting
    fill(subject, 1, shift=2.0)
    fill(subject, 2, shift=2.0)
    state = look(subject, clock)
    assert state.is_drifting
    assert alarming(state, 0.15) == ["score/one"]


def test_a_change_of_the_answers_alone_is_found() -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    rng = np.random.default_rng(0)
    for i in range(COUNT // 4):
        one = flow(rng, f"client-{i}", 4)
        one.classes = np.zeros(4, np.int64)
        subject.add(one)
    assert alarming(look(subject, clock), 0.15) == ["classes"]


def test_a_small_shift_is_none_however_sure() -> None:
    clock = Clock()
    subject = population(clock, {**SMALL, "windows": {"count": 20_000}})
    rng = np.random.default_rng(0)
    for i in range(4000):
        subject.add(flow(rng, f"client-{i}", 4, shift=0.2))
        if i % 1000 == 0:
            subject.export(subject.take(), clock.now_s)
    state = look(subject, clock)
    (score, *_) = state.looks["count"].seen
    assert score.p_value < 1e-4
    assert not state.is_drifting


def test_without_time_there_is_no_false_alarm_to_spend() -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    fill(subject, 1, shift=3.0)
    export = subject.export(subject.take(), clock.now_s)
    assert not subject.judged([export], subject.state, clock.now_s).is_drifting


def test_nothing_new_is_not_looked_at_again() -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    fill(subject, 0)
    first = look(subject, clock)
    assert look(subject, clock).looks["count"] is first.looks["count"]


def test_too_few_clients_say_nothing_however_odd() -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    rng = np.random.default_rng(0)
    for i in range(COUNT // 8):
        subject.add(flow(rng, f"client-{i % 10}", 4, shift=3.0))
    state = look(subject, clock)
    assert not state.is_drifting
    assert state.looks["count"].time_s == 0.0


@pytest.mark.parametrize("change", ["quarantined", "chain", "alarm"])
def test_what_is_held_to_be_an_attack_is_left_out(change: str) -> None:
    subject = population(Clock(), SMALL)
    one = flow(np.random.default_rng(0), "one", 4)
    if change == "alarm":
        one.samples = (*one.samples[:3], replace(one.samples[3], alarm=True))
    else:
        setattr(one, change, 1)
    subject.add(one)
    assert subject.take() == []
    assert subject.counts == {"taken": 0, "attack": 4, "full": 0}


def test_scores_that_are_none_are_none() -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    failed = SampleVerdict(Verdict.FAILED, math.nan, 2.0, {}, scores={"one": math.nan})
    for i in range(COUNT // 2):
        one = Flow("r", 0.0, None, f"client-{i}")
        one.samples = (failed,)
        subject.add(one)
    state = look(subject, clock)
    assert [each.effective_samples for each in state.looks["count"].seen] == [0.0] * 4
    assert not state.is_drifting


def test_what_waits_is_bounded_and_counted() -> None:
    subject = population(Clock(), SMALL)
    one = flow(np.random.default_rng(0), "one", 64)
    for _ in range(MOST_WAITING // 64 + 10):
        subject.add(one)
    assert subject.counts["full"] == 640
    assert sum(len(each.samples) for each in subject.take()) == MOST_WAITING
    subject.add(one)
    assert len(subject.take()) == 1


def test_several_workers_are_one_population() -> None:
    clock = Clock()
    one, other = population(clock, SMALL), population(clock, SMALL)
    rng = np.random.default_rng(0)
    for subject, side in ((one, "left"), (other, "right")):  # 15 clients each are too few
        for i in range(COUNT // 8):
            subject.add(flow(rng, f"{side}-{i % 15}", 4, shift=2.0))
    clock.now_s += HOUR_S
    mine, theirs = (each.export(each.take(), clock.now_s) for each in (one, other))
    assert not one.judged([mine], State(), clock.now_s).is_drifting
    sent = one.restored(json.loads(json.dumps(theirs.to_json())))
    together = one.judged([mine, sent], State(), clock.now_s)
    assert together.is_drifting
    for each in (one, other):
        each.adopt(together, clock.now_s)
        assert each.state.is_drifting


def test_the_windows_of_another_calibration_are_left_out() -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    fill(subject, 0, shift=2.0)
    fill(subject, 1, shift=2.0)
    clock.now_s += HOUR_S
    export = replace(subject.export(subject.take(), clock.now_s), subject="another")
    assert subject.judged([export], State(), clock.now_s) == State(str(SUBJECT))
    subject.adopt(State("another", looks={}), clock.now_s)
    assert subject.state.subject == str(SUBJECT)


@pytest.mark.parametrize("change", [{"marks": {}}, {"sketches": None}, {"since_s": None}])
def test_a_damaged_export_is_refused(change: dict[str, object]) -> None:
    clock = Clock()
    subject = population(clock, SMALL)
    facts = subject.export([], clock.now_s).to_json()
    with pytest.raises(ValueError, match=r"not what a worker exports|float"):
        subject.restored({**facts, **change})
