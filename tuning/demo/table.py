"""The demo's figures: a row for each kind of traffic, and the table they are shown in."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from detectors.binomial import lower_bound, upper_bound
from tuning.demo.policy import FPR
from tuning.demo.traffic import Kind, Outcome

Row = dict[str, Any]


def row(kind: Kind, without: Outcome, defended: Outcome) -> Row:
    """What one kind of traffic met, without the proxy and with it; shares are in [0, 1]."""
    n = len(kind.x)
    ms = {
        f"{which}_{name}_ms": float(np.percentile(outcome.latency_s, q) * 1000)
        for which, outcome in (("direct", without), ("breakwater", defended))
        for name, q in (("p50", 50), ("p99", 99))
    }
    return {
        "traffic": kind.name,
        "benign": kind.is_benign,
        "n": n,
        "accuracy_without": without.correct / n,
        "accuracy_with": defended.correct / n,
        "flagged": defended.flagged / n,
        "flagged_low": lower_bound(defended.flagged, n, 0.975),
        "flagged_high": upper_bound(defended.flagged, n, 0.975),
        **ms,
        "added_p50_ms": ms["breakwater_p50_ms"] - ms["direct_p50_ms"],
        "added_p99_ms": ms["breakwater_p99_ms"] - ms["direct_p99_ms"],
    }


def show(console: Console, rows: list[Row]) -> None:
    """Print the table."""
    images = rows[0]["n"]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{images} images of each kind, one a request; wanted false-positive rate {FPR:.0%}",
        caption="Flagged benign traffic is a false positive. Clopper-Pearson intervals, 95 %.",
    )
    table.add_column("traffic", no_wrap=True)
    for column in ("accuracy\nwithout", "accuracy\nwith", "flagged", "added\np50", "added\np99"):
        table.add_column(column, justify="right", no_wrap=True)
    for figures in rows:
        low, high = figures["flagged_low"], figures["flagged_high"]
        table.add_row(
            figures["traffic"],
            f"{figures['accuracy_without']:.0%}",
            f"{figures['accuracy_with']:.0%}",
            f"{_percent(figures['flagged'])} % ({_percent(low)}-{_percent(high)})",
            f"{figures['added_p50_ms']:.1f} ms",
            f"{figures['added_p99_ms']:.1f} ms",
        )
    console.print(table)


def _percent(share: float) -> str:
    """Three significant characters: 100, 97.6, 0.4."""
    return f"{100 * share:.0f}" if share > 0.9995 else f"{100 * share:.1f}"
