"""Several processes' histories as one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from proxy.history.overview import merged
from proxy.history.quarantine import Quarantine
from tests.proxy.history.queries import Clock

UP = {"state": "up", "queued": 2}
DOWN = {"state": "down: unreachable", "queued": 5}


def overview(shared: Any = None, *alarms: tuple[str, str, float], now: float = 1e6) -> Any:
    """What a process says in which these (model, principal, half-life) raised alarms."""
    quarantine = Quarantine(Clock(now))
    for model, principal, half_life_s in alarms:
        quarantine.alarm(model, principal, half_life_s=half_life_s, chain=round(now) % 100)
    standings = [asdict(standing) for standing in quarantine.standings()]
    return {"remembered": 10, "shared": shared, "principals": standings}


def test_nobody_says_nothing() -> None:
    assert merged([]) == {"remembered": 0, "shared": None, "principals": []}


def test_one_is_itself() -> None:
    one = overview(UP, ("a", "eve", 60.0), ("b", "bob", 600.0), ("a", "bob", 0.0))
    assert merged([one]) == one


def test_a_principal_of_several_is_one() -> None:
    eve, twice = ("m", "eve", 600.0), [("m", "eve", 600.0)] * 2
    both = merged([overview(None, *twice), overview(None, eve, now=1e6 + 30)])
    assert both["remembered"] == 10
    assert both["principals"] == [
        {
            "model": "m",
            "principal": "eve",
            "alarms": 2,
            "penalty": 2.0,
            "quarantined_for_s": 1200.0,
            "first_alarm": 1e6,
            "last_alarm": 1e6 + 30,
            "longest_chain": 30,
        }
    ]


def test_others_stay_apart_and_the_longest_in_quarantine_comes_first() -> None:
    first = overview(None, ("m", "eve", 60.0), ("m", "bob", 0.0))
    second = overview(None, ("other", "eve", 600.0))
    rows = [(s["model"], s["principal"]) for s in merged([first, second])["principals"]]
    assert rows == [("other", "eve"), ("m", "eve"), ("m", "bob")]


@pytest.mark.parametrize(
    ("states", "shared"),
    [
        ([None, None], None),
        ([UP, UP], {"state": "up", "queued": 4}),
        ([UP, DOWN], {"state": "down: unreachable", "queued": 7}),
        ([DOWN, UP], {"state": "down: unreachable", "queued": 7}),
        ([None, UP], UP),
    ],
)
def test_the_shared_store_is_up_where_it_is_for_all(states: list[Any], shared: Any) -> None:
    assert merged([overview(state) for state in states])["shared"] == shared
