"""Plots of shares, as inline SVG: bars, curves and points."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from tuning.page.canvas import INK, MUTED, PAGE, PERCENT, colour, panels, single, styled, svg
from tuning.page.rows import Row, columns, number

Curves = Mapping[str, Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]]
"""Tier -> attack -> rates of false and of true positives, both ascending."""


@dataclass(frozen=True)
class Point:
    """A part in the plot of cost against benefit."""

    label: str
    cost: float
    benefit: float
    """A share."""
    series: int
    """Number of its colour."""


def bars(
    name: str,
    lines: Mapping[str, Mapping[str, Row]],
    *,
    pale: Mapping[str, Mapping[str, Row]] | None = None,
    wanted: float | None = None,
    top: float | None = None,
    titled: Callable[[str], str] = str,
) -> str:
    """Groups of bars side by side with their intervals; hovering over one tells its figures.

    Args:
        name: of the plot, for references inside the SVG.
        lines: series -> group -> row with a share and its interval.
        pale: of the same form: shares drawn pale behind the bars.
        wanted: a rate drawn as a line.
        top: upper end of the axis, a share; None fits the intervals.
        titled: how a reader knows a group.
    """
    groups = columns(lines)
    with styled(name):
        figure, axis = single(340)
        tips: list[str] = []
        width = 0.84 / max(1, len(lines))
        for i, (series, cells) in enumerate(lines.items()):
            behind = (pale or {}).get(series, {})
            for group, row in cells.items():
                x = groups.index(group) - 0.42 + (i + 0.5) * width
                _bar(axis, x, 0.88 * width, i, row, behind.get(group), tips)
                tips[-1] = f"{titled(group)}, {series}: {tips[-1]}"
        if wanted is not None:
            axis.axhline(wanted, color=INK, lw=1.2, ls=(0, (4, 3)))
        room = max(8, 130 // max(1, len(groups)))  # characters
        labels = [
            "\n".join(textwrap.wrap(titled(group), room, break_long_words=False))
            for group in groups
        ]
        axis.set_xticks(range(len(groups)), labels)
        axis.tick_params("x", length=0, labelsize=11)
        axis.set_xlim(-0.55, len(groups) - 0.45)
        axis.set_ylim(0, top)
        axis.yaxis.set_major_formatter(PERCENT)
        return svg(figure, tips)


def _bar(
    axis: Axes,
    x: float,
    width: float,
    series: int,
    row: Row,
    behind: Row | None,
    tips: list[str],
) -> None:
    tint = colour(series)
    share, low, high = (number(row, key) for key in ("share", "low", "high"))
    if behind is not None:
        axis.bar(x, number(behind, "share"), width, color=tint, alpha=0.28)
    (drawn,) = axis.bar(x, share, width, color=tint)
    drawn.set_gid(f"tip{len(tips)}")
    axis.vlines(x, low, high, color=INK, lw=1.1, alpha=0.7)
    samples = row.get("samples")
    tips.append(f"{share:.1%} ({low:.1%} to {high:.1%}), {samples} samples")


def receiver(
    name: str,
    curves: Curves,
    tiers: Sequence[str],
    titled: Callable[[str], str] = str,
) -> str:
    """Share caught over false positives from 0.1 to 10 %, one panel an attack.

    Args:
        name: of the plot.
        curves: what to draw.
        tiers: all there are, in the order of their colours.
        titled: how a reader knows an attack.
    """
    attacks = list(dict.fromkeys(attack for by in curves.values() for attack in by))
    with styled(name, "both"):
        figure, axes = panels(len(attacks), across=5, height=205)
        for panel, attack in zip(axes, attacks, strict=False):
            for tier, by in curves.items():
                if attack in by:
                    false, true = (np.asarray(rate, dtype=np.float64) for rate in by[attack])
                    # a rate of zero has no place on a logarithmic axis
                    panel.step(
                        false.clip(1e-5), true, where="post", color=colour(tiers.index(tier))
                    )
            panel.set_title(titled(attack), loc="left")
            panel.set_xscale("log")
            panel.set_xlim(1e-3, 1e-1)
            panel.set_ylim(0, 1.02)
            panel.minorticks_off()
            panel.set_xticks([1e-3, 1e-2, 1e-1], ["0.1 %", "1 %", "10 %"])
            panel.yaxis.set_major_formatter(PERCENT)
        return svg(figure)


def bounds(
    name: str, attacked: Mapping[str, Sequence[Row]], *, defended: str, undefended: str
) -> str:
    """Share lost to an attacker over the bound; one panel a defence, dashed for fewer steps.

    Args:
        name: of the plot.
        attacked: panel -> rows with `eps_255` and, where there are several budgets, `steps`.
        defended: the figure of the defended model, with its `_low` and `_high`.
        undefended: that of the model alone.
    """
    with styled(name):
        figure, axes = panels(len(attacked), across=3, height=240)
        for panel, (defence, rows) in zip(axes, attacked.items(), strict=False):
            budgets = sorted({row.get("steps") or 0 for row in rows}, key=float)
            for steps in budgets:
                some = sorted(
                    (row for row in rows if (row.get("steps") or 0) == steps),
                    key=lambda row: number(row, "eps_255"),
                )
                style = "-" if steps == budgets[-1] else (0, (3, 2))
                _loss(panel, some, undefended, MUTED, style, -0.03)
                _loss(panel, some, defended, colour(0), style, 0.03)
            panel.set_title(textwrap.shorten(defence, 46, placeholder=" ..."), loc="left")
            panel.set_ylim(-0.02, 1.03)
            sizes = sorted({number(row, "eps_255") for row in rows})
            panel.set_xlim(math.log2(sizes[0]) - 0.3, math.log2(sizes[-1]) + 0.3)
            panel.set_xticks([math.log2(b) for b in sizes], [f"{b:g}/255" for b in sizes])
            panel.yaxis.set_major_formatter(PERCENT)
        return svg(figure)


def _loss(
    panel: Axes, rows: Sequence[Row], value: str, tint: str, style: object, aside: float
) -> None:
    x = [math.log2(number(row, "eps_255")) + aside for row in rows]
    # A sign of its own besides the colour.
    marker = "s" if tint == MUTED else "o"
    panel.plot(x, [number(row, value) for row in rows], color=tint, ls=style, marker=marker, ms=5)
    low, high = ([number(row, f"{value}_{end}") for row in rows] for end in ("low", "high"))
    panel.vlines(x, low, high, color=tint, lw=1)


def scatter(name: str, points: Sequence[Point], *, x: str, y: str) -> str:
    """Benefit over cost, each point with its name beside it.

    Args:
        name: of the plot.
        points: what to draw.
        x: label of the logarithmic axis of costs.
        y: label of the axis of benefits.
    """
    with styled(name, "both"):
        figure, axis = single(400)
        costs = [max(point.cost, 1e-3) for point in points]
        for cost, point in zip(costs, points, strict=True):
            axis.plot(
                cost, point.benefit, "o", ms=10, color=colour(point.series), mec=PAGE, mew=1.5
            )
        axis.set_xscale("log")
        # room for the names of the dearest
        axis.set_xlim(min(costs) / 1.5, max(costs) * 3)
        axis.set_ylim(0, 1.12 * max(point.benefit for point in points) + 0.02)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(PERCENT)
        axis.set(xlabel=x, ylabel=y)
        figure.draw_without_rendering()  # fixes where points lie
        _label(axis, points, costs)
        return svg(figure)


def _label(axis: Axes, points: Sequence[Point], costs: Iterable[float]) -> None:
    """Write each name where it covers no point and no other name, if there is such a place."""
    placed = [axis.transData.transform((c, p.benefit)) for c, p in zip(costs, points, strict=True)]
    frame, far = axis.bbox, 1e6
    taken = [(-far, -far, frame.x0, far), (frame.x1, -far, far, far)]
    taken += [(x - 7, y - 7, x + 7, y + 7) for x, y in placed]
    for (x, y), point in zip(placed, points, strict=True):
        long = 6.6 * len(point.label)
        places = [(10.0, -4.0), (-10.0 - long, -4.0)]
        places += [
            (side, up)
            for up in (9.0, -18.0, 26.0, -35.0, 43.0, -52.0, 60.0, -69.0)
            for side in (-long / 2, 6.0, -6.0 - long)
        ]
        free = [(right, up) for right, up in places if not _hits(x + right, y + up, long, taken)]
        right, up = (free or places)[0]
        taken.append((x + right, y + up, x + right + long, y + up + 12))
        leader = {"arrowstyle": "-", "color": MUTED, "lw": 0.7, "shrinkA": 0, "shrinkB": 5}
        left, bottom = axis.transData.inverted().transform((x, y))
        axis.annotate(
            point.label,
            (left, bottom),
            (right, up),
            textcoords="offset points",
            fontsize=11,
            arrowprops=leader if abs(up) > 20 else None,
        )


def _hits(
    x: float, y: float, long: float, taken: Iterable[tuple[float, float, float, float]]
) -> bool:
    return any(x < r and x + long > le and y < t and y + 12 > b for le, b, r, t in taken)
