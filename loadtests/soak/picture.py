"""The timeline as a picture: throughput, latency, memory, and when what was broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from loadtests.soak.tally import Interval, Window

_FAULT, _WINDOW = "#b0620a", "#e8a33d"


def draw(
    path: Path,
    timeline: Sequence[Interval],
    windows: Sequence[Window],
    injected: Sequence[tuple[str, float]],
    started_s: float,
) -> None:
    """Write the picture; times in seconds of the monotonic clock."""
    minutes = [interval.at_s / 60 for interval in timeline]
    panels = (
        ("answers per second", [i.requests_per_s for i in timeline], False),
        ("p99, ms", [i.p99_ms for i in timeline], True),
        ("resident, MiB", [i.resident_mib for i in timeline], False),
    )
    figure, axes = plt.subplots(3, 1, figsize=(11, 7), sharex=True, layout="constrained")
    for axis, (label, values, logarithmic) in zip(axes, panels, strict=True):
        axis.plot(minutes, values, color="#1f5fa8", linewidth=1.4)
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        if logarithmic:
            axis.set_yscale("log")
        else:
            axis.set_ylim(0, 1.15 * max(values, default=1.0))
        for window in windows:
            axis.axvspan(
                (window.start_s - started_s) / 60,
                (window.end_s - started_s) / 60,
                color=_WINDOW,
                alpha=0.5,
                linewidth=0,
            )
    for name, at_s in injected:
        minute = (at_s - started_s) / 60
        axes[0].axvline(minute, color=_FAULT, linewidth=0.6, linestyle=":")
        if len(injected) <= 40:
            where = {"xytext": (2, -3), "textcoords": "offset points", "fontsize": 6}
            top = axes[0].get_ylim()[1]
            told = name.replace("_", " ")
            axes[0].annotate(told, (minute, top), rotation=90, va="top", color=_FAULT, **where)
    axes[-1].set_xlabel("minutes (shaded: Triton was away)")
    axes[0].set_title("Soak: checked traffic while its neighbours break")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
