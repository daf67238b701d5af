"""Latency over load, a curve for each variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from tuning.knee import Capacity


def draw(path: Path, capacities: Mapping[str, Capacity]) -> None:
    """Write the picture: p99 over throughput, a dot at each knee."""
    figure, axis = plt.subplots(figsize=(9, 5.5), layout="constrained")
    for name, capacity in capacities.items():
        steps = [step for step in capacity.curve if step.has_kept_up]
        (line,) = axis.plot(
            [0.0, *(step.throughput_per_s for step in steps)],
            [capacity.idle_p99_ms, *(step.p99_ms for step in steps)],
            marker=".",
            linewidth=1.3,
            label=name,
        )
        if capacity.knee.best is not None:
            at = (capacity.knee.best.throughput_per_s, capacity.knee.best.p99_ms)
            axis.plot(*at, "o", markersize=11, markerfacecolor="none", color=line.get_color())
            told = f"{at[0]:,.0f}/s"
            axis.annotate(told, at, xytext=(8, -4), textcoords="offset points", fontsize=8)
    axis.set_yscale("log")
    axis.set_xlim(left=0)
    axis.set_xlabel("requests answered per second")
    axis.set_ylabel("p99, ms")
    axis.set_title("Latency over load; circles: p99 reaches twice the idle p99")
    axis.grid(alpha=0.25, which="both")
    axis.legend(fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
