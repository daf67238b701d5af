"""The study's attacker who knows everything: model, detectors, rule and purifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.progress import Progress
from torch import Tensor

from loadtests.adaptive import Target
from loadtests.confrontation import confront
from loadtests.harness import Report
from loadtests.quality.images import Labelled

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
    progress: Progress,
) -> None:
    """One row for each defence, bound and budget."""
    total = len(defences) * len(BOUNDS) * len(BUDGETS)
    task = progress.add_task("attacker who knows", total=total)
    for name, make in defences:
        branches = make()
        for bound in BOUNDS:
            known: tuple[Tensor, ...] = ()
            for steps in BUDGETS:
                found = confront(
                    *(branches, bare, targets.x, targets.y),
                    eps=bound / 255,
                    steps=steps,
                    known=known,
                )
                known = found.images
                report.add(defence=name, **found.row())
                progress.advance(task)
