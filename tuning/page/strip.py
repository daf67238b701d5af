"""Single counts as dots under headings: how far apart the tries of one kind are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from tuning.page.canvas import INK, MUTED, PAGE, colour, heading, single, styled, svg

_LINE = 26
"""Height of a line, CSS pixels."""
_APART = (0.0, 0.2, -0.2, 0.1, -0.1)
"""Dots one after the other lie so far from the middle of their line: equal ones stay visible."""

Dots = Mapping[str, Mapping[str, Sequence[float]]]
"""Heading -> line -> counts, at least 1."""


def strip(name: str, groups: Dots, *, x: str) -> str:
    """A line of dots for each kind, on a logarithmic axis from 1; an upright marks its median.

    Args:
        name: of the plot, for references inside the SVG.
        groups: what to draw; a line may have no dots.
        x: label of the axis.
    """
    lines = sum(map(len, groups.values()))
    with styled(name, "x"):
        figure, axis = single(_LINE * (lines + len(groups)) + 60)
        labels: dict[float, str] = {}
        y = 0.0
        for series, (title, some) in enumerate(groups.items()):
            heading(axis, y, title)
            for label, counts in some.items():
                y += 1
                labels[y] = label
                _dots(axis, y, sorted(counts), colour(series))
            y += 1
        _scale(
            axis, [count for some in groups.values() for each in some.values() for count in each]
        )
        axis.set_yticks(list(labels), list(labels.values()), color=INK)
        axis.set_ylim(y - 0.4, -0.6)
        axis.tick_params("y", length=0)
        axis.spines["left"].set_visible(False)
        axis.set_xlabel(x)
        return svg(figure)


def _dots(axis: Axes, y: float, counts: Sequence[float], tint: str) -> None:
    if not counts:
        axis.text(1, y, "none", color=MUTED, va="center")
        return
    high = [y + _APART[i % len(_APART)] for i in range(len(counts))]
    axis.plot(counts, high, "o", color=tint, mec=PAGE, mew=0.8, ms=8)
    axis.vlines(median(counts), y - 0.4, y + 0.4, color=INK, lw=1.6)


def _scale(axis: Axes, counts: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.set_xlim(0.9, 1.3 * max([10, *counts]))
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.minorticks_off()
