"""The sections about attackers: each measures one question and adds its rows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from loadtests.query_attacks.runs import Attack, Planned, Run
from loadtests.query_attacks.senses import Canary, Told
from loadtests.query_attacks.stage import Stage
from loadtests.query_attacks.suite import DECISION_BUDGET, SUITE, Plan, adaptive
from loadtests.query_attacks.tally import successes
from tuning.evaluate.attackers import L2, Decided

_HSJ = SUITE["hsj"].run
assert isinstance(_HSJ, Decided)
PLANS: dict[str, Plan] = {
    **SUITE,
    "hsj_image": Plan(replace(_HSJ, start="image"), L2, DECISION_BUDGET),
    "hsj_blind": replace(SUITE["hsj"], blinded=True),
}
"""The suite, HopSkipJump from an image of another class instead of noise, and a blinded one."""
POOLED = ("square", "square_round8", "nes_001", "nes_01", "hsj", "hsj_image", "boundary")
"""The attacks that the figures are of."""
BESIDE = ("simba", "sign_opt")
LED_ASTRAY = ("square", "nes_01", "hsj", "boundary")
BLINDED = ("square_blind", "nes_blind", "hsj_blind")
SPREAD = ("square", "nes_01", "hsj")
"""Attacks that come from many principals, or over several replicas."""
REPLICAS = 3
PLACES = {"detect": 0, "decoy": 600, "adaptive": 800, "blinded": 1300, "sybils": 1600}
PLACES["replicas"] = 1800
"""Where a section's images begin among the attacked ones."""


def _plain(name: str, *, is_sybil: bool = False) -> Attack:
    plan = PLANS[name]
    return Attack(name, lambda identities: plan, is_sybil)


def detect(stage: Stage) -> None:
    """Attackers who do not adapt, refused: when, and does any get through?"""
    pool: list[Run] = []
    names, count = (*POOLED, *BESIDE), stage.sizes.runs
    targets, tick = stage.targets(PLACES["detect"]), stage.task("detect", len(names) * count)
    with stage.scene.site(action="block") as site:
        for name in names:
            runs = stage.attacked(_plain(name), targets, count, site, tick, undefended=True)
            stage.searches("detect", name, runs)
            pool += runs if name in POOLED else []
    stage.searches("detect", "pooled", pool)
    searches = [run for run in pool if run.is_search]
    stage.share("detected before success", [run.is_detected for run in searches], ">= 0.99")
    queries = [run.seen_for for run in searches]
    quartiles = "{:.0f} to {:.0f}".format(*np.percentile(queries, (25, 75)))
    stage.report.figure(
        *("query that detects, median", float(np.median(queries)), "<= 5"),
        of=len(queries),
        interval=quartiles,
    )
    stage.share("success against block", successes(pool), "<= 0.02")


def decoy(stage: Stage) -> None:
    """The same attackers, answered by decoys: every one may spend its whole budget."""
    pool: list[Run] = []
    count = stage.sizes.decoyed
    targets, tick = stage.targets(PLACES["decoy"]), stage.task("decoy", len(LED_ASTRAY) * count)
    with stage.scene.site(action="decoy") as site:
        for name in LED_ASTRAY:
            runs = stage.attacked(_plain(name), targets, count, site, tick)
            stage.silent("decoy", name, runs)
            pool += runs
    stage.silent("decoy", "pooled", pool)
    stage.share("success against decoys", successes(pool), "<= 0.02")


def adaptively(stage: Stage) -> None:
    """Attackers who tune their steps: told nothing, told nothing and fleeing, and refused."""
    names, count = tuple(adaptive()), stage.sizes.adaptive
    fewer = max(1, count // 2)
    targets = stage.targets(PLACES["adaptive"])
    tick = stage.task("adaptive", len(names) * (2 * count + fewer))
    pool: list[Run] = []
    with stage.scene.site(action="decoy") as site:
        for name in names:
            runs = stage.attacked(Attack(name, listening(name)), targets, count, site, tick)
            stage.silent("adaptive, silent", name, runs)
            pool += runs
        for name in names:
            spec = Attack(f"{name}_fleeing", fleeing(name))
            runs = stage.attacked(spec, targets, fewer, site, tick)
            stage.silent("adaptive, silent", spec.name, runs)
    with stage.scene.site(action="block") as site:
        for name in names:
            runs = stage.attacked(Attack(name, refused(name)), targets, count, site, tick)
            stage.searches("adaptive, refused", name, runs)
    stage.share("success of adaptive attacks, silent", successes(pool), "<= 0.1")


def listening(name: str) -> Planned:
    """Who asks a canary now and then."""
    return lambda identities: adaptive(Canary)[name]


def fleeing(name: str) -> Planned:
    """Who also becomes somebody else when the canary is not well."""
    return lambda identities: adaptive(partial(Canary, flee=identities.renew))[name]


def refused(name: str) -> Planned:
    """Who is refused."""
    return lambda identities: adaptive(Told)[name]


def blinded(stage: Stage) -> None:
    """Attackers who shift, brighten and add noise to every query: are they detected?"""
    pool: list[Run] = []
    count = stage.sizes.blinded
    targets, tick = stage.targets(PLACES["blinded"]), stage.task("blinded", len(BLINDED) * count)
    with stage.scene.site(action="block") as site:
        for name in BLINDED:
            runs = stage.attacked(_plain(name), targets, count, site, tick, undefended=True)
            stage.searches("blinded", name, runs)
            pool += runs
    stage.searches("blinded", "pooled", pool)
    searches = [run for run in pool if run.is_search]
    stage.share("blinded, detected", [run.is_detected for run in searches], ">= 0.95")


def from_sybils(stage: Stage) -> None:
    """Attackers who send every query as another principal."""
    count = stage.sizes.sybils
    targets, tick = stage.targets(PLACES["sybils"]), stage.task("sybils", len(SPREAD) * count)
    with stage.scene.site(action="block") as site:
        for name in SPREAD:
            spec = _plain(name, is_sybil=True)
            runs = stage.attacked(spec, targets, count, site, tick, undefended=True)
            stage.searches("sybils", name, runs)


def spread(stage: Stage) -> None:
    """Attackers who ask three replicas in turn, and the same ones at a single replica."""
    tick = stage.task("replicas", 2 * len(SPREAD) * stage.sizes.replicas)
    found: dict[int, list[Run]] = {}
    for count in (1, REPLICAS):
        targets = stage.targets(PLACES["replicas"])
        found[count] = []
        with stage.scene.site(count, shared=True, action="block") as site:
            for name in SPREAD:
                runs = stage.attacked(_plain(name), targets, stage.sizes.replicas, site, tick)
                stage.searches(f"replicas: {count}", name, runs)
                found[count] += runs
            stage.report.add(section=f"replicas: {count}", degraded=site.degraded)
    pairs = zip(found[1], found[REPLICAS], strict=True)
    seen = [(a.seen_for, b.seen_for) for a, b in pairs if not (a.is_lucky or b.is_lucky)]
    for label, of in (("mean", np.mean), ("median", np.median)):
        alone, spread_out = of(seen, axis=0)
        stage.report.figure(
            f"queries until detection, {label}, {REPLICAS} replicas to one",
            float(spread_out / alone),
            "<= 1.2",
            of=len(seen),
        )
