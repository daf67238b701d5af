"""The study's attacker who knows everything: model, detectors, rule and purifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.progress import Progress
from torch import Tensor

from loadtests.harness import Report, Row
from loadtests.quality.images import Labelled
from tuning.evaluate.adaptive import Target
from tuning.evaluate.confrontation import confront
from tuning.evaluate.store import Store

BOUNDS = (1, 2, 4, 8)
"""Of 255."""
BUDGETS = (20, 60)
"""Gradient steps."""

Branches = Callable[[], Sequence[Target]]
"""Makes the ways through one defence."""


def report_knowing(
    defences: Sequence[tuple[str, Branches]],
    bare: Target,
    targets: Labelled,
    report: Report,
    store: Store,
    progress: Progress,
    *,
    about: str,
) -> None:
    """One row for each defence, bound and budget; a budget builds on what smaller ones found.

    Args:
        about: what the rows depend on besides; with another, kept rows are made anew.
    """
    total = len(defences) * len(BOUNDS) * len(BUDGETS)
    task = progress.add_task("attacker who knows", total=total)
    for name, make in defences:
        branches: list[Target] = []
        for bound in BOUNDS:
            for row in _rows(store, name, bound, about, branches, make, bare, targets):
                report.add(defence=name, **row)
                progress.advance(task)


def _rows(
    store: Store,
    name: str,
    bound: int,
    about: str,
    branches: list[Target],
    make: Branches,
    bare: Target,
    targets: Labelled,
) -> list[Row]:
    known: tuple[Tensor, ...] = ()

    def confronted(steps: int) -> Row:
        nonlocal known
        if not branches:
            branches.extend(make())
        found = confront(
            *(branches, bare, targets.x, targets.y), eps=bound / 255, steps=steps, known=known
        )
        known = found.images
        return dict(found.row())

    safe = "".join(c if c.isalnum() else "_" for c in name)
    return [
        store.row(
            f"knowing-{safe}-{bound}-{steps}",
            f"{len(targets.x)} {about}",
            lambda steps=steps: confronted(steps),
        )
        for steps in BUDGETS
    ]
