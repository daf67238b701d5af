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
        best = capacity.knee.best
        told = "no knee found" if best is None else f"{best.throughput_per_s:,.0f}/s"
        steps = [step for step in capacity.curve if step.has_kept_up]
        (line,) = axis.plot(
            [0.0, *(step.throughput_per_s for step in steps)],
            [capacity.idle_p99_ms, *(step.p99_ms for step in steps)],
            marker=".",
            linewidth=1.3,
            label=f"{name}: {told}",
        )
        if best is not None:
            axis.plot(
                best.throughput_per_s,
                best.p99_ms,
                "o",
                markersize=11,
                markerfacecolor="none",
                color=line.get_color(),
            )
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="y", which="minor", labelsize=7)
    axis.set_xlim(left=0)
    axis.set_xlabel("requests answered per second")
    axis.set_ylabel("p99, ms")
    axis.set_title("Latency over load; circles: p99 reaches twice the idle p99")
    axis.grid(alpha=0.25, which="both")
    axis.legend(fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)
