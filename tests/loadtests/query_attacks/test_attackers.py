"""The libraries' attacks behind an attempt: they run, they win, and go by their seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtests.query_attacks.run import Outcome, attack
from loadtests.query_attacks.suite import SUITE
from tests.loadtests.query_attacks.opponents import BRIGHT, Script, target
from tuning.evaluate.attempt import Target
from tuning.evaluate.oracle import LocalOracle

EASY = ("square", "square_round8", "nes_001", "nes_01", "hsj", "boundary", "sign_opt")


def run(name: str, seed: int = 3, level: float = 126) -> Outcome:
    plan = SUITE[name]
    habits = plan.habits(seed)
    return attack(plan.run, BRIGHT, BRIGHT, target(level), plan.bound, seed=seed, habits=habits)


@pytest.mark.parametrize("name", EASY)
def test_every_attack_wins_against_a_plain_model(name: str) -> None:
    won = run(name)
    assert won.ended == "won"
    assert won.served_at == won.won_at == won.queries <= SUITE[name].budget
    assert SUITE[name].bound.holds(won.log[-1].image, target().clean)


@pytest.mark.parametrize("name", ["square", "nes_01", "hsj", "square_blind"])
def test_runs_go_by_their_seed(name: str) -> None:
    first, again, other = (run(name, seed, 120) for seed in (3, 3, 4))
    images = [b"".join(one.image.tobytes() for one in o.log) for o in (first, again, other)]
    assert images[0] == images[1] != images[2]


def test_no_query_is_sent_twice() -> None:
    out = run("square", level=100)  # out of reach: the whole budget is spent
    assert out.ended == "budget"
    assert len({asked.image.tobytes() for asked in out.log}) == out.queries == 500


def test_an_attack_that_decoys_mislead_ends_with_its_budget_and_sends_numbers_only() -> None:
    plan, aim = SUITE["hsj"], target(100)
    decoy = Script([1] * 40 + [0] * 30 + [1])  # a while later even the attacked image is wrong
    out = attack(plan.run, decoy, BRIGHT, aim, plan.bound, seed=3, habits=plan.habits(3))
    assert (out.ended, out.won_at) == ("budget", 0)
    assert all(np.isfinite(image).all() for image in decoy.asked)


def test_rounded_attacks_send_files() -> None:
    for asked in run("square_round8", level=120).log:
        levels = asked.image * 255
        assert np.abs(levels - levels.round()).max() < 1e-4


@pytest.mark.data
@pytest.mark.parametrize("name", ["square", "simba", "nes_001"])
def test_attacks_need_queries_on_a_real_network(name: str, data_dir: Path) -> None:
    from loadtests.cifar import load_images, load_model

    model = LocalOracle(load_model(data_dir))
    x, y = (part.numpy() for part in load_images(data_dir, "test", 40))
    right = np.flatnonzero(model.answers(x).argmax(1) == y)[:4]
    plan, outcomes = SUITE[name], []
    for row in right:
        aim = Target(x[row], int(y[row]), x[y != y[row]])
        habits = plan.habits(int(row))
        outcomes.append(
            attack(plan.run, model, model, aim, plan.bound, seed=int(row), habits=habits)
        )
    assert sum(outcome.won_at > 0 for outcome in outcomes) >= 2
    assert max(outcome.queries for outcome in outcomes) > 10
