"""What is held about a model's traffic: alarms, their ends, and what follows from them."""

from __future__ import annotations

import json
import math

import pytest

from proxy.drift.settings import Drift
from proxy.drift.state import Look, Seen, State, Window

SUSPEND = Drift(on_alarm="suspend", max_suspend_hours=2)
HOUR_S = 3600.0


def after(
    state: State, *looks: str, window: Window = "count", time_s: float = 0.0, clear_after: int = 2
) -> State:
    """What is held after looks that show an `alarm`, a `hint`, or that all is `calm`."""
    for each in looks:
        look = Look(time_s=time_s)
        state = state.tested(
            *(window, look), alarm=each == "alarm", calm=each == "calm", clear_after=clear_after
        )
    return state


def test_an_alarm_stands_until_enough_looks_in_a_row_show_nothing() -> None:
    state = after(State("s"), "calm", "hint")
    assert not state.is_drifting
    state = after(state, "alarm", time_s=7.0)
    assert state.is_drifting
    assert state.since_s == 7.0
    assert after(state, "calm").is_drifting
    assert after(state, "calm", "hint", "calm").is_drifting, "a hint begins the count anew"
    assert after(state, "calm", "alarm", "calm").is_drifting
    over = after(state, "calm", "calm")
    assert not over.is_drifting
    assert over.since_s == 0.0


def test_each_window_takes_back_its_own_alarm() -> None:
    state = after(after(State("s"), "alarm"), "alarm", window="time", time_s=9.0)
    assert state.since_s == 0.0, "the first alarm's"
    state = after(state, "calm", "calm")
    assert state.is_drifting
    assert not after(state, "calm", "calm", window="time").is_drifting


def test_too_few_samples_say_nothing() -> None:
    state = after(State("s"), "alarm", time_s=5.0)
    state = state.noticed("count", Look(marks=(3,), time_s=8.0, samples=1.0))
    look = state.looks["count"]
    assert (look.marks, look.time_s, look.raised, look.samples) == ((3,), 5.0, True, 1.0)


def test_the_response_ends_with_time_by_an_operator_or_with_the_drift() -> None:
    state = after(State("s"), "alarm", time_s=100.0)
    assert state.response(SUSPEND, 100.0) == "suspend"
    assert state.response(Drift(), 100.0) == "none"
    assert state.response(SUSPEND, 99 + 2 * HOUR_S) == "suspend"
    assert state.response(SUSPEND, 100 + 2 * HOUR_S) == "none"
    assert state.response(SUSPEND, 100 - 24 * HOUR_S) == "none", "the clock was set back"
    assert state.acknowledge().response(SUSPEND, 100.0) == "none"
    assert after(state, "calm", "calm").response(SUSPEND, 100.0) == "none"


def test_an_alarm_that_one_principal_may_have_raised_changes_nothing_that_is_done() -> None:
    def seen(state: State, *, by_stretch: bool, alarm: bool, window: Window = "count") -> State:
        look = Look(by_stretch=by_stretch)
        return state.tested(window, look, alarm=alarm, calm=False, clear_after=2)

    doubted = seen(State("s"), by_stretch=True, alarm=True)
    assert doubted.is_drifting
    assert doubted.response(SUSPEND, 0.0) == "none"
    later = seen(doubted, by_stretch=False, alarm=False)
    assert later.response(SUSPEND, 0.0) == "none", "many principals have not shown it yet"
    assert later.noticed("count", Look()).response(SUSPEND, 0.0) == "none"
    assert State.from_json(later.to_json()).is_one_callers
    assert seen(later, by_stretch=False, alarm=True).response(SUSPEND, 0.0) == "suspend"
    assert (
        seen(later, by_stretch=False, alarm=True, window="time").response(SUSPEND, 0) == "suspend"
    )
    assert seen(later, by_stretch=True, alarm=True, window="time").response(SUSPEND, 0) == "none"


def test_an_acknowledged_drift_that_ended_says_nothing_of_the_next() -> None:
    state = after(State("s"), "alarm").acknowledge()
    assert after(state, "alarm").acknowledged
    state = after(state, "calm", "calm", "alarm", time_s=50.0)
    assert state.response(SUSPEND, 60.0) == "suspend"


def test_there_is_nothing_to_acknowledge_without_a_drift() -> None:
    assert not State("s").acknowledge().acknowledged


def test_it_travels_as_json() -> None:
    seen = (Seen("score/one", math.nan, 0.25, 10.0), Seen("verdict", 1e-9, 0.5, 3.0))
    state = after(State("s"), "alarm").tested(
        "time", Look((1, 2), 3.0, 10.0, seen), alarm=False, calm=True, clear_after=1
    )
    restored = State.from_json(json.loads(json.dumps(state.to_json(), allow_nan=False)))
    assert math.isnan(restored.looks["time"].seen[0].p_value)
    assert str(restored) == str(state)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"subject": "s", "since_s": 0, "acknowledged": False, "looks": []},
        {"subject": "s", "since_s": None, "acknowledged": False, "looks": {}},
        {"subject": "s", "since_s": 0, "acknowledged": False, "looks": {"time": {}}},
        {"subject": "s", "since_s": 0, "acknowledged": False, "looks": {"odd": 3}},
    ],
)
def test_what_is_no_state_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"state of a drift monitor|unknown windows|could not"):
        State.from_json(facts)
