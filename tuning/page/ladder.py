"""Shares as horizontal bars under headings: many lines with long names, readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tuning.page.canvas import INK, PAGE, colour, heading, single, styled, svg
from tuning.page.rows import Row, number

_HATCHED = "////"
_LINE = 22
"""Height of a line, CSS pixels."""


@dataclass(frozen=True)
class Line:
    """One bar."""

    label: str
    row: Row
    is_hatched: bool = False
    """Drawn with stripes, for what is not to be read like the others."""


@dataclass(frozen=True)
class Sign:
    """Another figure of each row, as a sign on its bar."""

    figure: str
    marker: str
    """Of matplotlib."""


def ladder(
    name: str,
    groups: Mapping[str, Sequence[Line]],
    figure: str,
    *,
    signs: Sequence[Sign] = (),
    wanted: float | None = None,
    top: float | None = None,
    unit: str = "%",
) -> str:
    """Bars with their intervals, one line each; hovering over one tells its figures.

    Args:
        name: of the plot, for references inside the SVG.
        groups: heading -> its lines.
        figure: what the bars show, with its `_low` and `_high`.
        signs: other figures of the rows.
        wanted: a rate drawn as a line.
        top: right end of the axis; None fits what is drawn.
        unit: of the figure; shares are shown in %.
    """
    lines = [line for some in groups.values() for line in some]
    with styled(name, "x"):
        drawing, axis = single(_LINE * (len(lines) + len(groups)) + 40)
        tips: list[str] = []
        labels: dict[float, str] = {}
        y = 0.0
        for series, (title, some) in enumerate(groups.items()):
            heading(axis, y, title)
            for line in some:
                y += 1
                labels[y] = line.label
                _bar(axis, y, line, figure, series, signs)
                tips.append(_tip(line, title, figure, unit))
            y += 1
        if wanted is not None:
            axis.axvline(wanted, color=INK, lw=1.2, ls=(0, (4, 3)))
        axis.set_yticks(list(labels), list(labels.values()), color=INK)
        axis.set_ylim(y - 0.4, -0.6)
        axis.set_xlim(0, top or _reach(lines, figure, signs, wanted))
        axis.tick_params("y", length=0)
        axis.spines["left"].set_visible(False)
        worded = FuncFormatter(lambda value, _: _worded(value, unit))
        axis.xaxis.set_major_formatter(worded)
        return svg(drawing, tips)


def _bar(axis: Axes, y: float, line: Line, figure: str, series: int, signs: Sequence[Sign]) -> None:
    row, tint = line.row, colour(series)
    share, low, high = (number(row, f"{figure}{end}") for end in ("", "_low", "_high"))
    known = 0.0 if math.isnan(share) else share
    (bar,) = axis.barh(y, known, 0.72, color=tint)
    if line.is_hatched:
        bar.set(facecolor=PAGE, edgecolor=tint, hatch=_HATCHED)
    bar.set_gid(f"tip{len(axis.patches) - 1}")
    if not math.isnan(share):
        axis.hlines(y, low, high, color=INK, lw=1.1, alpha=0.7)
    for sign in signs:
        value = number(row, sign.figure)
        if not math.isnan(value):
            # Axes begin at 0, and a latency may come out below by chance.
            axis.plot(
                max(value, 0.0), y, sign.marker, color=PAGE, mec=INK, mew=1, ms=6, clip_on=False
            )


def _tip(line: Line, heading: str, figure: str, unit: str) -> str:
    share, low, high = (number(line.row, f"{figure}{end}") for end in ("", "_low", "_high"))
    if math.isnan(share):
        return f"{heading}, {line.label}: not known"
    interval = "" if math.isnan(low) else f" ({_worded(low, unit)} to {_worded(high, unit)})"
    samples = line.row.get("samples")
    counted = "" if samples is None else f", {samples} samples"
    return f"{heading}, {line.label}: {_worded(share, unit)}{interval}{counted}"


def _worded(value: float, unit: str) -> str:
    return f"{100 * value:.3g} %" if unit == "%" else f"{value:.3g} {unit}"


def _reach(
    lines: Sequence[Line], figure: str, signs: Sequence[Sign], wanted: float | None
) -> float:
    shown = (figure, f"{figure}_high", *(sign.figure for sign in signs))
    ends = [number(line.row, name) for line in lines for name in shown]
    return 1.05 * max([end for end in ends if not math.isnan(end)] + [wanted or 0.0, 1e-3])
