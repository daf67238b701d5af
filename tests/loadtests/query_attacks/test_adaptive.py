"""Attackers who adapt get past what stops those who do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.query_attacks.run import Outcome, attack
from loadtests.query_attacks.senses import EVERY, Canary, Told
from loadtests.query_attacks.suite import SUITE, Plan, adaptive
from tests.loadtests.query_attacks.opponents import (
    BRIGHT,
    LINF,
    Memory,
    Script,
    attempt,
    flat,
    target,
)
from tuning.evaluate.attempt import Attempt, Habits
from tuning.evaluate.oracle import Answer


def run(plan: Plan, oracle: object, level: float = 124) -> Outcome:
    habits = plan.habits(3)
    return attack(
        plan.run,
        oracle,  # type: ignore[arg-type]
        BRIGHT,
        target(level),
        plan.bound,
        seed=3,
        habits=habits,
    )


@pytest.mark.parametrize("sense", [Told, Canary])
@pytest.mark.parametrize("name", sorted(adaptive()))
def test_nothing_is_lost_where_nothing_is_flagged(name: str, sense: type) -> None:
    assert run(adaptive(sense)[name], BRIGHT, 126).ended == "won"


@pytest.mark.parametrize(
    ("usual", "adapting", "level"),
    [
        ("square", "adaptive_square", 122),
        ("nes_001", "adaptive_nes", 127),
    ],
)
def test_refusals_are_adapted_to(usual: str, adapting: str, level: float) -> None:
    assert run(SUITE[usual], Memory(0.3), level).ended == "gave up"
    adapted = run(adaptive(Told)[adapting], Memory(0.3), level)
    assert adapted.ended == "won"
    assert adapted.refused > 0


def test_leaps_and_samples_of_a_decision_attack_widen() -> None:
    out = run(adaptive(Told)["adaptive_hsj"], Memory(0.3), 110)
    assert 0 < out.refused < out.queries / 2


def test_a_canary_notices_lies_and_flees() -> None:
    memory = Memory(0.5, lie=True)
    fled: list[int] = []

    def flee() -> None:
        fled.append(len(tried.log))
        memory.forget()

    tried = attempt(memory, level=100)
    canary = Canary(tried, flee=flee)
    assert len(tried.log) == 1
    near = [flat(100 + step / 10) for step in range(EVERY)]
    heard = [canary.ask(image) for image in near]
    assert [logits is None for logits in heard] == [False] * (EVERY - 1) + [True]
    assert not canary.is_alone  # those before were lies too
    assert fled == [1 + EVERY + 1]
    assert canary.ask(flat(20)) is not None
    assert canary.settle()


def test_a_canary_that_is_well_costs_one_query_in_a_few() -> None:
    tried = attempt(level=100)
    canary = Canary(tried)
    assert all(canary.ask(flat(level)) is not None for level in range(3 * EVERY))
    assert len(tried.log) == 1 + 3 * EVERY + 3
    assert canary.settle()
    assert len(tried.log) == 1 + 3 * EVERY + 3  # it has just been asked


def test_a_refusal_seen_by_the_canary_speaks_of_one_query() -> None:
    tried = attempt(Script([0, None, 0]))
    canary = Canary(tried)
    assert canary.ask(flat(1)) is None
    assert canary.is_alone
    assert canary.ask(flat(2)) is not None


def test_lies_are_not_built_on() -> None:
    memory = Memory(0.3, lie=True)
    told = run(adaptive(Told)["adaptive_square"], memory, 122)

    def sense(tried: Attempt) -> Canary:
        return Canary(tried, flee=other.forget)

    other = Memory(0.3, lie=True)
    wary = run(adaptive(sense)["adaptive_square"], other, 122)
    assert wary.ended == "won"
    assert told.ended == "budget" or told.queries > wary.queries


def test_adaptive_attacks_go_by_their_seed() -> None:
    for plan in adaptive(Canary).values():
        short = replace(plan, budget=100)
        first, again = (run(short, Memory(0.3), 118) for _ in range(2))
        images = [[one.image.tobytes() for one in out.log] for out in (first, again)]
        assert images[0] == images[1]


def test_everything_refused_spends_the_budget() -> None:
    class Never:
        def ask(self, image: object) -> Answer:
            return Answer(None)

    for sense in (Told, Canary):
        for plan in adaptive(sense).values():
            out = run(plan, Never())
            assert (out.ended, out.served_at) == ("budget", 0)
            assert out.refused == out.queries == plan.budget


def test_habits_go_with_adapting() -> None:
    out = attack(
        adaptive()["adaptive_square"].run,
        Script([0]),
        BRIGHT,
        target(),
        LINF,
        seed=1,
        habits=Habits(budget=30, round8=True),
    )
    levels = np.stack([asked.image for asked in out.log]) * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
