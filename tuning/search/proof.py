"""The recommended policy run for real, and beside the one it is to replace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from proxy.config import Model
from tuning.search.basis import Basis
from tuning.search.front import Threat
from tuning.search.latency import Cost, Paths
from tuning.search.measure import PATIENT_MS, Stand
from tuning.search.optimise import Trial
from tuning.search.outcome import FLAGGED, HELD, Bench
from tuning.search.promises import Row, latency_row, rate_rows, send_benign
from tuning.search.recorded import Recorded, Samples
from tuning.search.space import Candidate, Space

RECOMMENDED, OLD = "the recommended policy", "the old policy"
_JUDGING = "the recommended policy, judging"
_P99 = 0.99
_SIDES = 1.96
"""Standard errors on either side, of 95 %."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of running it."""

    promises: tuple[Row, ...]
    """What was predicted of the recommended policy, and what it did."""
    measured: Mapping[str, Cost]
    """Of the recommended policy, the old one and pass-through, asked in turn."""


def proved(
    taken: Trial,
    old: Candidate | None,
    basis: Basis,
    stand: Stand,
    space: Space,
    paths: Paths,
    requests: int,
    progress: Progress,
) -> Proof:
    """Run the policy on images nobody has seen.

    A policy that blocks is run as one that flags: the verdicts and the wait are the same, and a
    refused batch would hide how many of it were suspicious.

    Raises:
        ConfigError: a sidecar does not start, or answers with errors.
    """
    models = {name: _runnable(each, space) for name, each in _named(taken, old).items()}
    # What is scored aside is scored late, or not at all: its verdicts are counted as if waited for.
    waiting = models[RECOMMENDED].model_copy(update={"mode": "enforce"})
    stand.start(models | {_JUDGING: waiting})
    task = progress.add_task("asking the recommended policy", total=requests)
    # With all that was measured before, so that nothing but the time differs.
    names = [*(anchor.name for anchor in paths.measured), *models]
    measured = stand.ask_in_turn(names, requests, lambda: progress.advance(task))
    task = progress.add_task("sending it fresh images", total=None)
    flagged = send_benign(
        stand.running[_JUDGING],
        basis.spec,
        basis.fresh,
        on_batch=lambda count: progress.advance(task, count),
    )
    anew = Paths(space, paths.score_ms, {a: measured[a.name] for a in paths.measured})
    p99 = _p99(measured[RECOMMENDED])
    beside = anew.predict(taken.candidate, taken.outcome).p99_ms
    rows = [
        *rate_rows(taken.outcome, flagged, "fresh images"),
        latency_row(taken.predicted.p99_ms, p99, requests, "p99"),
        latency_row(beside, p99, requests, "p99, predicted from costs of the same minute"),
    ]
    return Proof(tuple(rows), measured)


def held_out(taken: Trial, bench: Bench) -> list[Row]:
    """The predicted false-positive rate against the recorded half the search did not see."""
    other = bench.outcome(taken.candidate, HELD)
    return rate_rows(taken.outcome, other.alarms, "held-out half")


def compared(
    new: Candidate,
    old: Candidate,
    bench: Bench,
    recorded: Recorded,
    threats: Sequence[Threat],
    measured: Mapping[str, Cost],
) -> list[Row]:
    """The same figures of two policies on the held-out half, with the difference's 95 % interval.

    The samples are the same, so that the interval is of each sample's own difference.
    """
    rows = []
    for threat in threats:
        names = [n for n in recorded.held.attacks if n in threat.attacks]
        pairs = [
            [_harm(c, bench, name, recorded.held.attacks[name]) for name in names]
            for c in (old, new)
        ]
        rows.append(_difference(f"harm, {threat.name}", *pairs))
    for group in recorded.held.benign:
        flags = [[bench.flagged(c, HELD, "benign", group).astype(np.float64)] for c in (old, new)]
        rows.append(_difference(f"false alarms, {group}", *flags))
    if RECOMMENDED in measured and OLD in measured:
        rows.append(
            {
                "figure": "p99, ms, measured in turn",
                "old": round(_p99(measured[OLD]), 3),
                "new": round(_p99(measured[RECOMMENDED]), 3),
                "difference": round(_p99(measured[RECOMMENDED]) - _p99(measured[OLD]), 3),
            }
        )
    return [row for row in rows if row]


def _named(taken: Trial, old: Candidate | None) -> dict[str, Candidate]:
    return {RECOMMENDED: taken.candidate} | ({} if old is None else {OLD: old})


def _runnable(candidate: Candidate, space: Space) -> Model:
    made = space.policy(candidate)
    action = "flag" if made.action == "block" else made.action
    budget_ms = max(made.budget_ms, PATIENT_MS)
    return made.model_copy(update={"action": action, "budget_ms": budget_ms})


def _harm(
    candidate: Candidate, bench: Bench, attack: str, each: Samples
) -> npt.NDArray[np.float64]:
    flagged = bench.flagged(candidate, HELD, "attack", attack)
    wrong = ~bench.right(candidate, each, flagged)
    if candidate.action == "block":
        wrong &= ~flagged
    return FLAGGED * (wrong.astype(np.float64) + (wrong & ~flagged))


def _difference(
    figure: str,
    old: Sequence[npt.NDArray[np.float64]],
    new: Sequence[npt.NDArray[np.float64]],
) -> Row:
    """Means over sets of samples, each of equal weight; empty where there are no samples."""
    kept = [(a, b) for a, b in zip(old, new, strict=True) if len(a)]
    if not kept:
        return {}
    means = np.array([[a.mean(), b.mean()] for a, b in kept]).mean(0)
    # As if one sample more had differed: where none did, the interval is not nothing.
    spread = [(float((b - a).var()) + 1 / (len(a) + 4)) / len(a) for a, b in kept]
    error = math.sqrt(sum(spread)) / len(kept)
    difference = float(means[1] - means[0])
    return {
        "figure": figure,
        "old": round(float(means[0]), 4),
        "new": round(float(means[1]), 4),
        "difference": round(difference, 4),
        "difference_low": round(difference - _SIDES * error, 4),
        "difference_high": round(difference + _SIDES * error, 4),
        "samples": sum(len(a) for a, _ in kept),
    }


def _p99(cost: Cost) -> float:
    return float(np.quantile(cost[0], _P99))
