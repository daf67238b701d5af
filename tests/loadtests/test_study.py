"""The study's own arithmetic: shares, ranks, what is kept between runs, and its goals."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from detectors import DETECTORS
from loadtests.harness import Report
from loadtests.quality import goals, study
from loadtests.quality.detection import ELEVEN, share, variant_of
from loadtests.quality.networks import UNSEEN, VARIANTS
from purifiers import PURIFIERS
from tuning.attacks import FAMILIES
from tuning.evaluate.attacks import ATTACKS


def test_a_share_with_its_interval() -> None:
    row = share(torch.tensor([True] * 7 + [False] * 93))
    low, high = stats.binomtest(7, 100).proportion_ci(0.95, "exact")
    assert row["share"] == 0.07
    assert row["low"] == pytest.approx(low, abs=1e-4)
    assert row["high"] == pytest.approx(high, abs=1e-4)
    assert share(torch.zeros(0, dtype=torch.bool))["samples"] == 0


def test_every_attack_has_networks_that_know_nothing_like_it() -> None:
    like = {"gradient_linf": "linf", "minimal_l2": "l2", "query": "l2", "block": "blocks"}
    like |= {"patch": "patch", "smooth": "smooth"}
    assert set(UNSEEN) == {attack.family for attack in ATTACKS.values()}
    for name, attack in ATTACKS.items():
        kinds = VARIANTS[variant_of(name)]
        assert like[attack.family] not in kinds
        assert set(kinds) < set(FAMILIES)
    assert set(ELEVEN) <= set(ATTACKS)


def test_the_sets_and_ways_are_of_registered_parts() -> None:
    assert {name for name, _ in study.PARTS.values()} <= set(DETECTORS)
    for tier in study.TIERS:
        assert set(tier.parts) <= set(study.PARTS)
    used = {name for way in study.WAYS for recipe in way.copies for name, _ in recipe}
    assert used <= set(PURIFIERS)
    served = {"none", *(way.name for way in study.WAYS)}
    assert {system.served for system in study.SYSTEMS} <= served


def test_a_defence_that_does_harm_misses_its_goal() -> None:
    report = Report("")
    for defence, strongest in (("tier 0 flags", 0.5), ("tier 2 flags", 0.7), ("jpeg always", 0.9)):
        report.add(
            defence=defence, eps_255=1, steps=20, strongest=strongest, undefended_strongest=0.6
        )
    goals._harm(report.rows.copy(), report)
    assert [row["met"] for row in report.rows if "met" in row] == [True, False]
