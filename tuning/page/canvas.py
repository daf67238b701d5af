"""Figures whose colours and font the page's style sheet decides, as inline SVG."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

SERIES = 8
"""Colours there are; more series than that begin again."""
INK, MUTED, GRID, PAGE = "#00000b", "#00000c", "#00000d", "#00000e"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAGE: "--page"} | {
    f"#0000a{i}": f"--s{i}" for i in range(SERIES)
}
"""Colour that stands in while plotting -> variable of the style sheet."""
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")
_WIDTH = 1100
_STYLE: dict[Any, Any] = {  # the names are literals to mypy
    "svg.fonttype": "none",
    "font.size": 12,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 2,
}


def styled(name: str, grid: str = "y") -> AbstractContextManager[None]:
    """The style in which a plot must be made and written.

    Args:
        name: of the plot; references inside its SVG derive from it.
        grid: axes with grid lines: x, y or both.
    """
    return mpl.rc_context({**_STYLE, "svg.hashsalt": name, "axes.grid.axis": grid})


def single(height: int) -> tuple[Figure, Axes]:
    """A figure of one plot, as wide as the page; height in CSS pixels."""
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72, layout="constrained")
    return figure, figure.add_subplot()


def panels(count: int, *, across: int, height: int) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, `height` CSS pixels each, and its axes."""
    down = max(1, math.ceil(count / across))
    apart = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1)  # inches
    figure = Figure(figsize=(_WIDTH / 72, height * down / 72), dpi=72, layout=apart)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def colour(series: int) -> str:
    """What stands in for the colour of a series."""
    return f"#0000a{series % SERIES}"


def heading(axis: Axes, y: float, text: str) -> None:
    """Write a heading over lines of a plot, at the height `y` in data."""
    axis.annotate(
        text,
        (0, y),
        (4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontweight="bold",
        bbox={"fc": PAGE, "ec": "none", "pad": 1},
    )


def svg(figure: Figure, tips: Sequence[str] = ()) -> str:
    """The figure without what a page around it does not need, in the page's colours and font."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', "", drawn)
    drawn = re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg aria-hidden="true"', drawn)
    drawn = re.sub(r' id="[\w.]+_\d+"', "", drawn)  # numbered alike in every figure
    drawn = drawn.replace("xlink:href", "href")
    drawn = re.sub(r"font-family: [^;\"]*;? ?", "", drawn)
    for stand_in, variable in _VARIABLES.items():
        drawn = drawn.replace(stand_in, f"var({variable})")
    for i, tip in enumerate(tips):
        drawn = drawn.replace(f'<g id="tip{i}">', f"<g><title>{html.escape(tip)}</title>")
    return drawn.strip()
