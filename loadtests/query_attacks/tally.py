"""Runs to rows: shares with their intervals, and quantiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from detectors.binomial import lower_bound, upper_bound
from loadtests.harness import Row
from loadtests.query_attacks.runs import Run


def interval(flags: Iterable[bool]) -> tuple[float, float, float]:
    """The share that is true and its exact two-sided 95 % interval (Clopper, Pearson)."""
    told = list(flags)
    count, total = sum(told), len(told)
    if not total:
        return 0.0, 0.0, 1.0
    return (
        count / total,
        lower_bound(count, total, 0.975),
        upper_bound(count, total, 0.975),
    )


def share(flags: Iterable[bool], name: str) -> Row:
    """The share that is true as columns, with its interval."""
    value, low, high = interval(flags)
    return {name: round(value, 5), "low": round(low, 5), "high": round(high, 5)}


def detection(runs: Sequence[Run]) -> Row:
    """How many searches are detected before they succeed, and with which query.

    Quantiles are over all searches; one that is not detected counts with all its queries.
    """
    searches = [run for run in runs if run.is_search]
    seen = [run.seen_for for run in searches] or [0]
    q25, median, q75, q90 = (float(q) for q in np.percentile(seen, (25, 50, 75, 90)))
    return {
        "runs": len(runs),
        "searches": len(searches),
        **share((run.is_detected for run in searches), "detected"),
        "detected_of_all": round(float(np.mean([run.is_detected for run in runs])), 3),
        **{"query_25": q25, "query_median": median, "query_75": q75, "query_90": q90},
        "query_most": max(seen),
    }


def success(runs: Sequence[Run]) -> Row:
    """How many succeed, of those that are not lucky, beside the undefended model."""
    free = [run.undefended_at for run in runs if run.undefended_at]
    known = any(run.undefended_at is not None for run in runs)
    return {
        "lucky": sum(run.is_lucky for run in runs),
        **share(successes(runs), "success"),
        "found": round(interval(finds(runs))[0], 3),
        "undefended": round(len(free) / len(runs), 3) if known else None,
        "undefended_median": float(np.median(free)) if free else None,
        **cost(runs),
    }


def successes(runs: Iterable[Run]) -> list[bool]:
    """Whether each succeeds, of those that are not lucky."""
    return [run.served_at > 0 for run in runs if not run.is_lucky]


def finds(runs: Iterable[Run]) -> list[bool]:
    """Whether each asks what the bare model gets wrong, whatever the answer; lucky ones apart."""
    return [run.won_at > 0 for run in runs if not run.is_lucky]


def cost(runs: Sequence[Run]) -> Row:
    """Queries and time of all runs, and their seeds."""
    queries = sum(run.queries for run in runs)
    return {
        "alarmed": round(float(np.mean([run.alarms > 0 for run in runs])), 3),
        "queries": queries,
        "ms_per_query": round(1000 * sum(run.seconds for run in runs) / max(1, queries), 1),
        "seeds": f"0 to {len(runs) - 1}",
    }


def moments(runs: Iterable[Run]) -> str:
    """The query that detects each search before it succeeds, or -, in the order of seeds."""
    return " ".join(
        str(run.detected_at) if run.is_detected else "-" for run in runs if run.is_search
    )
