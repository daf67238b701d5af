"""Penalties against the sum they stand for, and who is remembered when not everybody can be."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.history.quarantine import HEAVIEST, LISTED_S, Quarantine, Standing
from tests.proxy.history.queries import Clock

HALF_LIFE_S = 600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quarantine(clock: Clock) -> Quarantine:
    return Quarantine(clock)


def raise_alarms(quarantine: Quarantine, name: str, count: int = 1) -> Standing:
    """So many alarms of a principal at the model `m`, at once; how it stands after the last."""
    return [quarantine.alarm("m", name, half_life_s=HALF_LIFE_S) for _ in range(count)][-1]


def names(quarantine: Quarantine) -> set[str]:
    return {standing.principal for standing in quarantine.standings()}


def test_one_alarm_is_one_half_life(quarantine: Quarantine, clock: Clock) -> None:
    assert not quarantine.is_quarantined("m", "eve")
    standing = quarantine.alarm("m", "eve", half_life_s=HALF_LIFE_S, chain=5)
    assert standing == Standing(
        "m",
        "eve",
        1,
        1.0,
        HALF_LIFE_S,
        first_alarm=clock.now,
        last_alarm=clock.now,
        longest_chain=5,
    )
    assert quarantine.is_quarantined("m", "eve")
    assert not quarantine.is_quarantined("m", "bob")
    assert not quarantine.is_quarantined("other", "eve")
    clock.now += HALF_LIFE_S - 0.001
    assert quarantine.is_quarantined("m", "eve")
    clock.now += 0.001
    assert not quarantine.is_quarantined("m", "eve")
    (standing,) = quarantine.standings()
    assert (standing.penalty, standing.quarantined_for_s) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("alarms", "half_lives"), [(1, 1), (2, 2), (4, 3), (8, 4), (64, 7), (65, 7), (5000, 7)]
)
def test_each_doubling_adds_a_half_life_up_to_seven(
    quarantine: Quarantine, alarms: int, half_lives: int
) -> None:
    standing = raise_alarms(quarantine, "eve", alarms)
    assert standing.quarantined_for_s == pytest.approx(half_lives * HALF_LIFE_S)
    assert standing.penalty == pytest.approx(min(alarms, HEAVIEST))
    assert standing.alarms == alarms


@given(
    st.lists(st.tuples(st.floats(0, 5000), st.integers(0, 900)), min_size=1, max_size=60),
    st.floats(0.5, 5000),
    st.floats(0, 20_000),
)
def test_a_penalty_is_the_decayed_sum_of_its_alarms(
    alarms: list[tuple[float, int]], half_life_s: float, after_s: float
) -> None:
    clock = Clock()
    quarantine = Quarantine(clock)
    begun, penalty = clock.now + alarms[0][0], 0.0
    for wait_s, chain in alarms:
        clock.now += wait_s
        penalty = min(penalty * 2 ** (-wait_s / half_life_s) + 1, HEAVIEST)
        standing = quarantine.alarm("m", "eve", half_life_s=half_life_s, chain=chain)
        if standing.alarms == 1:  # all before has vanished
            begun, penalty = clock.now, 1.0
    last = clock.now
    assert standing.penalty == pytest.approx(penalty, rel=1e-3)
    assert standing.longest_chain <= max(chain for _, chain in alarms)
    assert (standing.first_alarm, standing.last_alarm) == (begun, last)
    clock.now += after_s
    penalty *= 2 ** (-after_s / half_life_s)
    for standing in quarantine.standings():
        assert standing.penalty == pytest.approx(penalty, rel=1e-3, abs=1e-9)
    if not math.isclose(penalty, 0.5, rel_tol=1e-3):
        assert quarantine.is_quarantined("m", "eve") == (penalty > 0.5)
    if not math.isclose(penalty, 1 / 64, rel_tol=1e-3):
        assert bool(quarantine.standings()) == (after_s < LISTED_S or penalty > 1 / 64)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([0.0, 60.0, 600.0]), st.floats(0, 400)),
        max_size=200,
    ),
    st.integers(1, 12),
)
def test_never_more_than_the_capacity_and_the_newest_always(
    events: list[tuple[int, float, float]], capacity: int
) -> None:
    clock = Clock()
    quarantine = Quarantine(clock, capacity=capacity)
    for number, half_life_s, wait_s in events:
        clock.now += wait_s
        before = {s.principal: s for s in quarantine.standings()}
        quarantine.alarm("m", str(number), half_life_s=half_life_s)
        after = {s.principal: s for s in quarantine.standings()}
        assert len(quarantine) == len(after) <= capacity
        assert str(number) in after
        gone = before.keys() - after.keys()
        assert len(gone) <= 1
        lightest = min((s.penalty for s in before.values()), default=0.0)
        assert all(before[name].penalty == lightest for name in gone)
        assert quarantine.is_quarantined("m", str(number)) == (half_life_s > 0)
        assert quarantine.quarantined == sum(s.quarantined_for_s > 0 for s in after.values())


def test_a_flood_of_names_displaces_nobody_who_raised_several() -> None:
    clock = Clock()
    quarantine = Quarantine(clock, capacity=100)
    for heavy in range(60):
        raise_alarms(quarantine, f"heavy {heavy}", 3)
    for fresh in range(5000):
        clock.now += 0.01
        raise_alarms(quarantine, f"fresh {fresh}")
    assert len(quarantine) == 100
    assert {f"heavy {heavy}" for heavy in range(60)} <= names(quarantine)
    assert quarantine.is_quarantined("m", "fresh 4999")


def test_a_full_memory_gives_one_place_to_a_flood() -> None:
    clock = Clock()
    quarantine = Quarantine(clock, capacity=100)
    for heavy in range(100):
        raise_alarms(quarantine, f"heavy {heavy}", 3)
    for fresh in range(500):
        clock.now += 0.001
        raise_alarms(quarantine, f"fresh {fresh}")
    assert len([name for name in names(quarantine) if name.startswith("heavy")]) == 99


def test_penalties_of_different_half_lives_are_compared_as_they_are_now() -> None:
    clock = Clock()
    quarantine = Quarantine(clock, capacity=2)
    for _ in range(8):
        quarantine.alarm("quick", "eve", half_life_s=60)
    quarantine.alarm("slow", "mallory", half_life_s=6000)
    clock.now += 240  # of 8, half is left; of 1, almost all
    quarantine.alarm("m", "trudy", half_life_s=600)
    assert names(quarantine) == {"mallory", "trudy"}


def test_without_half_life_alarms_are_listed_for_an_hour(
    quarantine: Quarantine, clock: Clock
) -> None:
    for _ in range(3):
        quarantine.alarm("m", "eve", half_life_s=0, chain=9)
    assert not quarantine.is_quarantined("m", "eve")
    (standing,) = quarantine.standings()
    assert (standing.alarms, standing.penalty, standing.quarantined_for_s) == (3, 0.0, 0.0)
    clock.now += LISTED_S - 1
    assert names(quarantine) == {"eve"}
    clock.now += 1
    assert quarantine.standings() == []
    assert len(quarantine) == 0


def test_who_is_free_for_long_vanishes_without_being_asked_for(
    quarantine: Quarantine, clock: Clock
) -> None:
    for number in range(500):
        raise_alarms(quarantine, str(number))
    clock.now += 7 * HALF_LIFE_S
    raise_alarms(quarantine, "new")
    assert len(quarantine) == 1


def test_an_endless_half_life_ends_in_no_number_json_lacks(quarantine: Quarantine) -> None:
    quarantine.alarm("m", "eve", half_life_s=math.inf)
    assert quarantine.is_quarantined("m", "eve")
    assert json.dumps([asdict(s) for s in quarantine.standings()], allow_nan=False)


def test_a_new_half_life_keeps_the_penalty(quarantine: Quarantine, clock: Clock) -> None:
    raise_alarms(quarantine, "eve", 4)
    clock.now += HALF_LIFE_S
    assert quarantine.alarm("m", "eve", half_life_s=60.0).penalty == pytest.approx(3)
    assert quarantine.alarm("m", "eve", half_life_s=0).quarantined_for_s == 0
    assert not quarantine.is_quarantined("m", "eve")
    standing = raise_alarms(quarantine, "eve")
    assert (standing.penalty, standing.alarms, standing.first_alarm) == (
        1,
        7,
        clock.now - HALF_LIFE_S,
    )


def test_reloads_leave_nothing_behind(clock: Clock) -> None:
    quarantine = Quarantine(clock, capacity=50)
    for reload in range(40):
        for number in range(50):
            quarantine.alarm("m", str(number), half_life_s=60.0 + reload)
    for number in range(200):
        clock.now += 1
        quarantine.alarm("m", f"new {number}", half_life_s=60.0)
    assert len(quarantine) == 50


# -- what another replica says ---------------------------------------------------------------------


def test_an_imposed_quarantine_ends_when_the_other_replica_ends_it(
    quarantine: Quarantine, clock: Clock
) -> None:
    until = clock.now + 1000
    for _ in range(10):  # with every query the mark is seen again
        quarantine.impose("m", "eve", until=until)
        assert quarantine.is_quarantined("m", "eve")
        clock.now += 100
    quarantine.impose("m", "eve", until=until)
    assert not quarantine.is_quarantined("m", "eve")


def test_an_imposed_quarantine_is_listed_without_alarms(
    quarantine: Quarantine, clock: Clock
) -> None:
    quarantine.impose("m", "eve", until=clock.now + 1000)
    (standing,) = quarantine.standings()
    assert (standing.alarms, standing.quarantined_for_s) == (0, 1000)
    assert standing.penalty == 0.5


def test_alarms_go_on_where_another_replica_stopped(quarantine: Quarantine, clock: Clock) -> None:
    quarantine.impose("m", "eve", until=clock.now + 2 * HALF_LIFE_S)  # two alarms there
    standing = raise_alarms(quarantine, "eve", 2)
    assert standing.penalty == pytest.approx(4)
    assert standing.quarantined_for_s == pytest.approx(3 * HALF_LIFE_S)
    assert standing.alarms == 2


def test_the_longer_of_two_quarantines_counts(quarantine: Quarantine, clock: Clock) -> None:
    raise_alarms(quarantine, "eve")
    quarantine.impose("m", "eve", until=clock.now + 1)
    assert quarantine.standings()[0].penalty == 1
    quarantine.impose("m", "eve", until=clock.now + 2 * HALF_LIFE_S)
    assert quarantine.standings()[0].penalty == pytest.approx(2)


@pytest.mark.parametrize("until", [math.nan, math.inf, -math.inf, 0.0, 999_999.0])
def test_rubbish_imposes_nothing(quarantine: Quarantine, until: float) -> None:
    quarantine.impose("m", "eve", until=until)
    assert len(quarantine) == 0


def test_those_imposed_make_room_first(clock: Clock) -> None:
    """Their mark brings them back with their next query; an alarm here is kept nowhere else."""
    quarantine = Quarantine(clock, capacity=2)
    raise_alarms(quarantine, "here")
    quarantine.impose("m", "elsewhere", until=clock.now + 9000)
    raise_alarms(quarantine, "new")
    assert names(quarantine) == {"here", "new"}


# -- what the operator does ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("principal", "model", "left"),
    [
        (None, None, []),
        ("eve", None, [("a", "bob"), ("b", "bob")]),
        (None, "a", [("b", "bob"), ("b", "eve")]),
        ("eve", "a", [("a", "bob"), ("b", "bob"), ("b", "eve")]),
        ("nobody", None, [("a", "bob"), ("a", "eve"), ("b", "bob"), ("b", "eve")]),
    ],
)
def test_clear(
    quarantine: Quarantine, principal: str | None, model: str | None, left: list[tuple[str, str]]
) -> None:
    for each in ("a", "b"):
        for name in ("eve", "bob"):
            quarantine.alarm(each, name, half_life_s=HALF_LIFE_S)
    assert quarantine.clear(principal, model) == 4 - len(left)
    assert sorted((s.model, s.principal) for s in quarantine.standings()) == left
    assert quarantine.is_quarantined("a", "eve") == (("a", "eve") in left)
    assert quarantine.alarm("a", "eve", half_life_s=HALF_LIFE_S).alarms == 1 + (
        ("a", "eve") in left
    )


def test_the_longest_in_quarantine_comes_first(quarantine: Quarantine, clock: Clock) -> None:
    raise_alarms(quarantine, "twice", 2)
    quarantine.alarm("m", "free early", half_life_s=0)
    clock.now += 1
    quarantine.alarm("m", "free late", half_life_s=0)
    raise_alarms(quarantine, "once")
    order = [standing.principal for standing in quarantine.standings()]
    assert order == ["twice", "once", "free late", "free early"]


def test_a_clock_set_back_lengthens_no_later_quarantine(
    quarantine: Quarantine, clock: Clock
) -> None:
    raise_alarms(quarantine, "eve")
    clock.now -= 1e9
    assert raise_alarms(quarantine, "eve").quarantined_for_s == 7 * HALF_LIFE_S


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_changes_no_quarantine(clock: Clock, jump_s: float) -> None:
    wall = Clock()
    wall.now = 2e9
    quarantine = Quarantine(clock, wall=wall)
    quarantine.alarm("m", "eve", half_life_s=HALF_LIFE_S)
    (shown,) = quarantine.standings()
    assert (shown.first_alarm, shown.last_alarm) == (2e9, 2e9)
    wall.now += jump_s
    assert quarantine.is_quarantined("m", "eve")
    (shown,) = quarantine.standings()
    assert shown.quarantined_for_s == HALF_LIFE_S
    clock.now += HALF_LIFE_S
    assert not quarantine.is_quarantined("m", "eve")
