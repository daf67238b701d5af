"""What the study's sections are made of: plans, places and names."""

from __future__ import annotations

import itertools
from dataclasses import fields

from loadtests.query_attacks import picture, searches
from loadtests.query_attacks.__main__ import SECTIONS
from loadtests.query_attacks.runs import Attack
from loadtests.query_attacks.searches import PLACES, PLANS
from loadtests.query_attacks.stage import FULL, QUICK
from loadtests.query_attacks.suite import SUITE, adaptive
from loadtests.query_attacks.victim import FIRST_ATTACKED, OTHERS, OWNED, TEST
from tuning.evaluate.attackers import Decided

RIGHT = 0.8
"""Share of the images, at least, that the model gets right and so can be attacked."""


def test_every_attack_named_is_planned() -> None:
    sets = (searches.POOLED, searches.BESIDE, searches.LED_ASTRAY)
    named = {*itertools.chain(*sets, searches.BLINDED, searches.SPREAD)}
    assert named <= set(PLANS)
    assert set(SUITE) <= named
    assert {attack for _, attack in picture.NAMES} <= named
    assert {section for section, _ in picture.NAMES} <= set(SECTIONS)


def test_variants_differ_from_the_suite_in_one_thing() -> None:
    start, blind = PLANS["hsj_image"].run, PLANS["hsj_blind"]
    assert isinstance(start, Decided)
    assert start.start == "image"
    assert blind.blinded
    assert blind.run == SUITE["hsj"].run


def test_sections_attack_images_of_their_own() -> None:
    attacks = {
        "detect": (len(searches.POOLED) + len(searches.BESIDE)) * FULL.runs,
        "decoy": len(searches.LED_ASTRAY) * FULL.decoyed,
        "adaptive": 3 * len(adaptive()) * FULL.adaptive,
        "blinded": len(searches.BLINDED) * FULL.blinded,
        "sybils": len(searches.SPREAD) * FULL.sybils,
        "replicas": len(searches.SPREAD) * FULL.replicas,
    }
    assert set(attacks) == set(PLACES) < set(SECTIONS)
    ends = [*sorted(PLACES.values())[1:], TEST - FIRST_ATTACKED]
    for (section, place), end in zip(sorted(PLACES.items(), key=lambda p: p[1]), ends, strict=True):
        assert attacks[section] <= RIGHT * (end - place), section


def test_attackers_own_enough_images_of_other_classes() -> None:
    runs = (len(searches.POOLED) + len(searches.BESIDE)) * FULL.runs
    assert runs * OTHERS <= 0.5 * len(range(*OWNED.indices(OWNED.stop)))


def test_quick_is_less() -> None:
    for field in fields(FULL):
        assert getattr(QUICK, field.name) < getattr(FULL, field.name)


def test_a_fleeing_attacker_becomes_somebody_else() -> None:
    spec = Attack("nes", searches.fleeing("adaptive_nes"))
    plan, principal = spec.of("run")
    assert principal(1) == principal(2) == "run-0"
    assert plan.run != adaptive()["adaptive_nes"].run
    _, sybil = Attack("nes", searches.fleeing("adaptive_nes"), is_sybil=True).of("run")
    assert sybil(1) != sybil(2)
