"""The costs of variants side by side, and what to conclude from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from tuning.knee import Capacity
from tuning.variants import PASS_THROUGH, Variant


@dataclass(frozen=True, slots=True)
class Cost:
    """What one variant costs."""

    variant: Variant
    capacity: Capacity
    added_p50_ms: float
    """Over pass-through, idle, measured one right after the other."""
    cpu_ms: float
    """Of all its processes, per request, at half the knee."""
    suspicious: float | None
    """Share of the samples sent that were; None where nothing is scored."""

    def row(self) -> dict[str, Any]:
        """Flat, for the table and the file."""
        return {
            "variant": self.variant.name,
            "workers": self.variant.workers,
            "idle_p50_ms": round(self.capacity.idle_p50_ms, 3),
            "idle_p99_ms": round(self.capacity.idle_p99_ms, 3),
            "added_p50_ms": round(self.added_p50_ms, 3),
            "knee_per_s": round(self.capacity.knee.throughput_per_s, 1),
            "cpu_ms": round(self.cpu_ms, 3),
            "suspicious": None if self.suspicious is None else round(self.suspicious, 4),
        }


def recommendation(costs: Sequence[Cost], budget_ms: float) -> str:
    """Two sentences: what to run within the budget, and what the next stronger one would cost."""
    defended = [cost for cost in costs if cost.variant.name != PASS_THROUGH]
    fitting = [cost for cost in defended if cost.added_p50_ms <= budget_ms]
    if not fitting:
        least = min(defended, key=lambda cost: cost.added_p50_ms)
        return (
            f"Nothing fits into {budget_ms:g} ms: the least is {_told(least)}. "
            "Take fewer or cheaper detectors, or a larger --budget-ms."
        )
    best = max(fitting, key=_merit)
    stronger = [cost for cost in defended if cost.variant.strength > best.variant.strength]
    if stronger:
        nearest = min(stronger, key=lambda cost: cost.added_p50_ms)
        second = f"More protection does not fit: {_told(nearest)}."
    else:
        second = "Nothing here protects more; what else fits is slower or takes less load."
    return f"Within {budget_ms:g} ms take {_told(best)}. {second}"


def _merit(cost: Cost) -> tuple[int, float]:
    return cost.variant.strength, cost.capacity.knee.throughput_per_s


def _told(cost: Cost) -> str:
    return (
        f"'{cost.variant.name}', which adds {cost.added_p50_ms:.2f} ms to the p50 and takes "
        f"{cost.capacity.knee.throughput_per_s:,.0f} requests/s at {cost.cpu_ms:.2f} ms of CPU each"
    )


def table(name: str, costs: Sequence[Cost]) -> Table:
    """The costs side by side."""
    made = Table(title=f"{name}: what each way to run the defence costs on this machine")
    titles = (
        "variant",
        "idle p50",
        "p99, ms",
        "added p50, ms",
        "knee, /s",
        "CPU, ms",
        "suspicious",
    )
    for title in titles:
        made.add_column(title, justify="left" if title == "variant" else "right")
    for cost in costs:
        knee = cost.capacity.knee
        made.add_row(
            cost.variant.name,
            f"{cost.capacity.idle_p50_ms:.2f}",
            f"{cost.capacity.idle_p99_ms:.2f}",
            "-" if cost.variant.name == PASS_THROUGH else f"{cost.added_p50_ms:.2f}",
            f"{knee.throughput_per_s:,.0f}" if knee.best else "none found",
            f"{cost.cpu_ms:.2f}",
            "-" if cost.suspicious is None else f"{cost.suspicious:.1%}",
        )
    made.caption = "knee: most requests/s at which p99 is at most twice the idle p99"
    return made
