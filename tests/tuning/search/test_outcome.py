"""What a policy does to samples, by action."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.binomial import upper_bound
from proxy.evaluation import Kind
from tests.tuning.search import scene
from tuning.search.outcome import HELD, Count
from tuning.search.recorded import record
from tuning.search.space import ACTIONS, Action, Candidate

BENCH = scene.bench()
ACTED: tuple[tuple[Action, str], ...] = (("flag", "none"), ("purify", "median"), ("block", "none"))


def candidate(action: Action, chain: str = "none", fpr: float = 0.01) -> Candidate:
    return Candidate(scene.PALETTE, fpr, None, action, chain, "speculative")


def test_what_is_flagged_is_the_same_and_what_is_served_is_not() -> None:
    found = {
        action: BENCH.outcome(candidate(action, "jpeg" if action == "purify" else "none"), HELD)
        for action in ACTIONS
    }
    attack = {action: outcome.attacks["pgd_8"] for action, outcome in found.items()}
    assert len({each.missed for each in attack.values()}) == 1
    assert attack["flag"].missed.share < 0.3
    assert attack["observe"] == attack["flag"]
    assert attack["flag"].wrong.share == 1
    assert attack["block"].wrong == attack["block"].missed
    assert attack["block"].wrong.share < attack["purify"].wrong.share < attack["flag"].wrong.share
    assert attack["purify"].right.share == pytest.approx(0.7, abs=0.15)
    harms = [attack[a].harm for a in ("block", "purify", "flag")]
    assert harms == sorted(harms)


def test_accuracy_is_lost_by_acting_on_false_alarms_alone() -> None:
    flag, purify, block = (
        BENCH.outcome(candidate(action, chain, 0.1), HELD) for action, chain in ACTED
    )
    assert flag.loss == 0
    assert 0 < block.loss < 0.11
    assert purify.loss < block.loss


def test_the_rate_rests_on_the_calibration_and_on_fresh_samples() -> None:
    outcome = BENCH.outcome(candidate("flag", fpr=0.05))
    assert outcome.fpr == pytest.approx(0.05, abs=0.02)
    worst = outcome.worst_group
    assert outcome.expected(worst).total == 1000 + 400
    assert outcome.fpr == max(outcome.expected(group).share for group in scene.GROUPS)


def test_shares_of_a_cascades_levels_are_of_clean_samples() -> None:
    made = replace(candidate("flag"), stops=(0.5, 0.001))
    outcome = BENCH.outcome(made)
    assert outcome.reached.sum() == pytest.approx(1)
    assert len(outcome.reached) == len(outcome.levels) > 1
    assert outcome.reached[1] > 0.2


def test_without_labels_nothing_is_said_of_accuracy() -> None:
    made = scene.made()
    bare = replace(made, kinds=tuple(Kind(k.role, k.name, k.scores) for k in made.kinds))
    outcome = scene.bench(record(bare)).outcome(candidate("purify", "jpeg"))
    assert outcome.accuracy is None
    assert outcome.loss == 0
    assert all(each.right.count == 0 for each in outcome.attacks.values())


def test_means_over_attacks() -> None:
    outcome = BENCH.outcome(candidate("flag"), HELD)
    names = ("pgd_8", "deepfool")
    wanted = np.mean([outcome.attacks[name].harm for name in names])
    assert outcome.harm([*names, "unknown"]) == pytest.approx(wanted)
    assert outcome.harm([]) == 0


def test_counts() -> None:
    assert Count(0, 0).share == 0
    assert Count(0, 0).interval == (0, 1)
    assert Count(1, 10) + Count(2, 30) == Count(3, 40)
    assert Count(1, 10).interval[1] == upper_bound(1, 10, 0.975)
