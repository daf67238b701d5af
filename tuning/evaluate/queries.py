"""Attackers who know nothing and ask the live endpoint, with the real defence in the loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tuning.evaluate.attackers import L2, LINF, Decided, Run, Scored
from tuning.evaluate.attempt import Attempt, Bound, Habits, Over, Target
from tuning.evaluate.endpoint import VERDICT, Client, Site
from tuning.evaluate.figures import share
from tuning.evaluate.samples import Split
from tuning.evaluate.sizes import QUERY, Sizes
from tuning.evaluate.store import Row, code, digest
from tuning.evaluate.subject import Subject

_OF = 3 * 32 * 32
"""Values of an image that the L2 bound is meant for; it grows with the root of their number."""
_OTHERS = 5
_LISTED = 200
"""Images whose number of queries a row names, at most."""

NAMES = ("square_queries", "hop_skip_jump_queries")


@dataclass(frozen=True)
class _Plan:
    run: Run
    bound: Bound
    budget: int
    reads: str


def _plans(subject: Subject, sizes: Sizes) -> dict[str, _Plan]:
    values = int(np.prod(subject.shape))
    far = Bound("l2", L2.size * (values / _OF) ** 0.5)
    square = Scored("SquareAttack", {"eps": LINF.size, "max_iter": sizes.scored_budget})
    jump = Decided("HopSkipJump", {"norm": 2, "max_iter": 60, "max_eval": 1000, "init_eval": 30})
    plans = (
        _Plan(square, LINF, sizes.scored_budget, "scores"),
        _Plan(jump, far, sizes.decided_budget, "class"),
    )
    return dict(zip(NAMES, plans, strict=True))


@dataclass(frozen=True)
class _Tried:
    """How one attack on one image ended."""

    won_at: int
    """Query that was served a wrong answer within the bound; 0: none."""
    queries: int
    flagged: int
    """Queries that were flagged or refused."""
    flagged_at: int
    """The first of them; 0: none."""
    is_quiet: bool
    """Won by a query that was not flagged."""
    seconds: float


def query_rows(
    subject: Subject, given: Split, sizes: Sizes, sites: Sequence[Site], names: Sequence[str]
) -> list[Row]:
    """One row for each attack and site, undefended and defended."""
    plans = {name: plan for name, plan in _plans(subject, sizes).items() if name in names}
    targets = _targets(given, sizes.queried)
    task = subject.progress.add_task("queries", total=len(plans) * len(sites) * len(targets))
    rows: list[Row] = []
    for name, plan in plans.items():
        for site in sites:
            subject.progress.update(task, description=f"{name}: {site.action}")
            key = (
                f"{subject.identity} {subject.model.model_dump_json()} {subject.seed} {site.action}"
                f" {subject.artifact.provenance.model_dump_json()} {plan}"
                f" {code(plan.run, Attempt, _Tried)}"
                f" {digest(*(t.clean.sum() for t in targets))} {len(targets)}"
            )

            def make(plan: _Plan = plan, site: Site = site, name: str = name) -> Row:
                tried = []
                for number, target in enumerate(targets):
                    tried.append(_tried(subject, plan, site, target, f"{name}-{number}"))
                    subject.progress.advance(task)
                return _row(name, plan, site, tried)

            label = f"{name}-{site.action.replace(' ', '_')}"
            rows.append(subject.store.row(label, key, make))
    return rows


def _targets(given: Split, count: int) -> list[Target]:
    x, y = given.targets.x.numpy(), given.targets.y
    assert y is not None  # noqa: S101 (targets have labels)
    found = []
    for i in range(min(count, len(x))):
        others = (y != y[i]).nonzero()[:_OTHERS, 0].numpy()
        found.append(Target(x[i], int(y[i]), x[others]))
    return found


def _tried(subject: Subject, plan: _Plan, site: Site, target: Target, who: str) -> _Tried:
    started = time.monotonic()
    levels = subject.spec.encoded or subject.spec.datatype == "UINT8"
    habits = Habits(budget=plan.budget, round8=levels, give_up=plan.budget)
    with Client(site, subject.spec, f"{who}-{site.action}") as client:
        attempt = Attempt(client, None, target, plan.bound, habits, classes=subject.classes)
        won = False
        try:
            plan.run(attempt, subject.seed)
        except Over as over:
            won = over.ended == "won"
    flags = [
        i
        for i, asked in enumerate(attempt.log, 1)
        if asked.answer.is_refused or dict(asked.answer.metadata).get(VERDICT) == "suspicious"
    ]
    queries = len(attempt.log)
    return _Tried(
        won_at=queries if won else 0,
        queries=queries,
        flagged=len(flags),
        flagged_at=flags[0] if flags else 0,
        is_quiet=won and queries not in flags,
        seconds=time.monotonic() - started,
    )


def _row(name: str, plan: _Plan, site: Site, tried: Sequence[_Tried]) -> Row:
    won = torch.tensor([each.won_at > 0 for each in tried])
    quiet = torch.tensor([each.is_quiet for each in tried])
    seen = torch.tensor([each.flagged_at > 0 for each in tried])
    early = [each.flagged_at for each in tried if each.flagged_at]
    needed = [each.won_at for each in tried if each.won_at]
    queries = sum(each.queries for each in tried)
    return {
        **{"kind": "query", "name": name, "threat": QUERY, "tuned_on": False},
        **{"action": site.action, "reads": plan.reads, "budget": plan.budget},
        "samples": len(tried),
        **share("success", won),
        **share("unflagged_success", quiet),
        **share("detected", seen),
        "queries_median": float(np.median(needed)) if needed else None,
        # As text, since rows are flat; few, as every image costs hundreds of queries.
        "queries_to_success": " ".join(map(str, sorted(needed)[:_LISTED])),
        "queries_mean": round(queries / max(1, len(tried)), 1),
        "detected_at_median": float(np.median(early)) if early else None,
        "flagged_per_query": round(sum(e.flagged for e in tried) / max(1, queries), 4),
        "flagged_before_success_mean": round(sum(e.flagged for e in tried) / len(tried), 1),
        "ms_per_query": round(1000 * sum(e.seconds for e in tried) / max(1, queries), 1),
    }
