"""Run attacks and judge them by what was sent and answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuning.evaluate.attackers import Run
from tuning.evaluate.attempt import Asked, Attempt, Bound, Ended, Habits, Over, Target
from tuning.evaluate.oracle import LocalOracle, Oracle

RESTARTS = 20
"""Most times an attack that ended by itself starts again on what is left of its budget."""

Fate = Literal["served", "corrected", "refused", ""]


@dataclass(frozen=True)
class Outcome:
    """How one attack on one image went. Query numbers count from 1; 0 means never."""

    label: int
    ended: Ended
    won_at: int
    """The first query within the bound that the bare model gets wrong."""
    won_answer: Fate
    """What the attacker got for it: a wrong answer, the right one, or none."""
    served_at: int
    """The first such query that was also answered wrongly: the attacker has won."""
    refused: int
    """Queries refused."""
    seconds: float
    log: tuple[Asked, ...]

    @property
    def queries(self) -> int:
        """How many were sent."""
        return len(self.log)


def attack(
    run: Run,
    oracle: Oracle,
    bare: LocalOracle,
    target: Target,
    bound: Bound,
    *,
    seed: int,
    habits: Habits,
    on_asked: Callable[[int, Asked], None] | None = None,
) -> Outcome:
    """Run one attack on one image until it wins, gives up or has spent its budget.

    Args:
        run: the attack. One that ends by itself, for instance because it took a purifier's error
            for a win, starts again with another seed.
        oracle: what it asks.
        bare: the model without a defence, which says what is a win.
        on_asked: called after every query with its number, from 1.
    """
    attempt = Attempt(oracle, bare, target, bound, habits, on_asked)
    started = time.monotonic()
    ended: Ended = "finished"
    try:
        for restart in range(RESTARTS):
            run(attempt, seed + 1_000_003 * restart)
    except Over as over:
        ended = over.ended
    return _judged(attempt, bare, ended, time.monotonic() - started)


def _judged(attempt: Attempt, bare: LocalOracle, ended: Ended, seconds: float) -> Outcome:
    log, label = attempt.log, attempt.target.label
    inside = [number for number, asked in enumerate(log, 1) if asked.in_bound]
    wins: list[int] = []
    if inside:
        answers = bare.answers(np.stack([log[number - 1].image for number in inside]))
        wins = [n for n, logits in zip(inside, answers, strict=True) if logits.argmax() != label]
    fates = {number: _fate(log[number - 1], label) for number in wins}
    served = [number for number, fate in fates.items() if fate == "served"]
    return Outcome(
        label=label,
        ended=ended,
        won_at=wins[0] if wins else 0,
        won_answer=fates[wins[0]] if wins else "",
        served_at=served[0] if served else 0,
        refused=sum(asked.answer.is_refused for asked in log),
        seconds=seconds,
        log=tuple(log),
    )


def _fate(asked: Asked, label: int) -> Fate:
    if asked.answer.is_refused:
        return "refused"
    return "corrected" if asked.answer.label == label else "served"


def summary(outcomes: Iterable[Outcome]) -> dict[str, float | int | None]:
    """Shares and medians over runs; None where no run won."""
    runs = list(outcomes)
    won = [outcome.won_at for outcome in runs if outcome.won_at]
    served = [outcome.served_at for outcome in runs if outcome.served_at]
    queries = sum(outcome.queries for outcome in runs)
    return {
        "runs": len(runs),
        "won": len(won) / len(runs),
        "won_at_median": float(np.median(won)) if won else None,
        "served": len(served) / len(runs),
        "served_at_median": float(np.median(served)) if served else None,
        "won_in_3": sum(number <= 3 for number in served) / len(runs),
        "needs_10": sum(number >= 10 for number in won) / len(runs),
        "queries": queries,
        "refused": sum(outcome.refused for outcome in runs),
        "ms_per_query": 1000 * sum(outcome.seconds for outcome in runs) / max(queries, 1),
    }
