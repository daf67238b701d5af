"""Draws panels of the dashboard from what their queries found: enough of Grafana to look at."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter

from loadtests.dashboard_queries import Json, substituted

PAPER, PANEL, INK, FAINT = "#111217", "#181b1f", "#d8d9da", "#6e7179"
COLOURS = {
    **{"green": "#73bf69", "yellow": "#f2cc0c", "red": "#f2495c", "blue": "#5794f2"},
    **{"orange": "#ff9830", "purple": "#b877d9", "text": INK},
}
PALETTE = (
    *("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9"),
    *("#8ab8ff", "#fade2a", "#96d98d", "#ffb357", "#ff7383", "#ca95e5"),
)
MOST_NAMES = 8
"""In one legend; Grafana's scrolls."""

Found = Sequence[tuple[Json, Sequence[Json]]]
"""A panel's queries, each with its series."""


def formatted(value: float, unit: str) -> str:
    """A value with its unit, as short as Grafana writes it."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit in ("s", "Bps", "bytes"):
        scales = {"s": [(86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")]}
        sized = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")]
        size, name = next(
            ((size, name) for size, name in scales.get(unit, sized) if abs(value) >= size),
            (1e-6, "µs") if unit == "s" else (1, "B"),
        )
        per = "/s" if unit == "Bps" else ""
        return f"{value / size:.3g} {name}{per}"
    if unit.startswith("suffix:"):
        return f"{value:.3g}{unit.removeprefix('suffix:')}"
    return f"{value:.4g}" + {"reqps": " req/s", "cps": "/s", "ops": "/s"}.get(unit, "")


def draw(ax: Axes, panel: Json, found: Found, title: str = "") -> None:
    """Draw one panel into its place."""
    ax.set_facecolor(PANEL)
    ax.set_title(title or panel["title"], loc="left", fontsize=8, color=INK, pad=4)
    for side in ax.spines.values():
        side.set_color("#2c3235")
    ax.tick_params(colors=FAINT, labelsize=6, length=0)
    kind = panel["type"]
    if kind not in ("text", "table") and not any(series for _, series in found):
        text = panel["fieldConfig"]["defaults"].get("noValue", "No data")
        ax.text(0.5, 0.5, text, ha="center", va="center", color=FAINT, transform=ax.transAxes)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    _DRAWN[kind](ax, panel, found)


def _named(panel: Json, found: Found) -> list[tuple[str, Any, Any]]:
    """Name, times and values of every series."""
    named = []
    for target, series in found:
        for each in series:
            labels = {"le": "", **each["metric"]}
            text = target["legendFormat"].replace("{{", "${").strip()
            names = {key: labels.get(key, "") for key in ("pod", "namespace", *labels)}
            name = substituted(text.replace("}}", "}"), names)
            times, values = np.array(each["values"], dtype=float).T
            named.append((name, times, values))
    return named


def _colour(panel: Json, name: str, number: int) -> str:
    import re

    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        hit = (
            matcher["options"] == name
            if matcher["id"] == "byName"
            else re.search(matcher["options"], name)
        )
        for each in override["properties"]:
            if hit and each["id"] == "color":
                return COLOURS[each["value"]["fixedColor"]]
    return PALETTE[number % len(PALETTE)]


def _clock(ax: Axes) -> None:
    def text(at: float, _: int) -> str:
        return f"{int(at // 3600 % 24):02}:{int(at // 60 % 60):02}:{int(at % 60):02}"

    ax.xaxis.set_major_formatter(FuncFormatter(text))
    ax.locator_params(axis="x", nbins=5)


def _timeseries(ax: Axes, panel: Json, found: Found) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    named = _named(panel, found)
    colours = [_colour(panel, name, i) for i, (name, _, _) in enumerate(named)]
    if defaults["custom"]["stacking"]["mode"] == "normal":
        times = np.unique(np.concatenate([each for _, each, _ in named]))
        rows = [np.nan_to_num(np.interp(times, t, v, 0, 0)) for _, t, v in named]
        ax.stackplot(times, rows, colors=[to_rgba(each, 0.5) for each in colours])
    for (name, times, values), colour in zip(named, colours, strict=True):
        if defaults["custom"]["stacking"]["mode"] != "normal":
            style = "--" if name.endswith("calibrated") else "-"
            ax.plot(*_with_gaps(times, values), style, color=colour, linewidth=1)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: formatted(y, defaults["unit"])))
    ax.locator_params(axis="y", nbins=5)
    if defaults.get("min") == 0:
        ax.set_ylim(bottom=0)
    ax.grid(color="#25282d", linewidth=0.5)
    _clock(ax)
    _legend(ax, [name for name, _, _ in named], colours)


def _with_gaps(times: Any, values: Any) -> tuple[Any, Any]:
    """The series with nothing where it has no values, so that no line leads over it."""
    if len(times) < 2:
        return times, values
    steps = np.diff(times)
    gaps = np.flatnonzero(steps > 1.5 * steps.min()) + 1
    return np.insert(times, gaps, times[gaps - 1]), np.insert(values, gaps, np.nan)


def _legend(ax: Axes, names: Sequence[str], colours: Sequence[str]) -> None:
    for name, colour in list(zip(names, colours, strict=True))[:MOST_NAMES]:
        ax.plot([], [], color=colour, linewidth=2, label=name)
    if names:
        ax.legend(
            **{"loc": "upper left", "bbox_to_anchor": (-0.02, -0.1), "ncols": 4, "fontsize": 5.5},
            **{"frameon": False, "labelcolor": INK, "handlelength": 1, "columnspacing": 1},
        )


def _stat(ax: Axes, panel: Json, found: Found) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    told = [(name, values[-1]) for name, _, values in _named(panel, found)]
    for i, (name, value) in enumerate(told):
        steps = defaults["thresholds"]["steps"]
        colour = [s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1]
        x = (i + 0.5) / len(told)
        place = {"ha": "center", "va": "center", "transform": ax.transAxes}
        text = formatted(value, defaults["unit"])
        ax.text(x, 0.5, text, fontsize=15, color=COLOURS[colour], **place)
        if len(told) > 1:
            ax.text(x, 0.15, name, fontsize=6, color=INK, **place)
    ax.set_xticks([])
    ax.set_yticks([])


def _heatmap(ax: Axes, panel: Json, found: Found) -> None:
    rows = sorted((float(each["metric"]["le"]), each["values"]) for _, s in found for each in s)
    times = sorted({float(at) for _, values in rows for at, _ in values})
    counts = np.zeros((len(rows), len(times)))
    for i, (_, values) in enumerate(rows):
        for at, text in values:
            counts[i, times.index(float(at))] = float(text)
    cells = np.maximum(np.diff(counts, axis=0, prepend=0), 0)
    cells[cells < 1e-9] = np.nan
    step = times[1] - times[0] if len(times) > 1 else 1
    edges = [*times, times[-1] + step]
    ax.pcolormesh(edges, np.arange(len(rows) + 1), np.sqrt(cells), cmap="turbo")
    unit = panel["options"]["yAxis"]["unit"]
    names = [formatted(bound, unit) if math.isfinite(bound) else "+Inf" for bound, _ in rows]
    ax.set_yticks(np.arange(len(rows)) + 1, names)
    for label in ax.get_yticklabels()[len(rows) % 2 :: 2] if len(rows) > 11 else ():
        label.set_visible(False)
    _clock(ax)


def _state_timeline(ax: Axes, panel: Json, found: Found) -> None:
    options = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    named = _named(panel, found)
    for i, (name, times, values) in enumerate(named):
        step = times[1] - times[0] if len(times) > 1 else 1
        before = math.nan
        for at, value in zip(times, values, strict=True):
            told = options[f"{value:.0f}"]
            ax.broken_barh([(at, step)], (i - 0.4, 0.8), color=COLOURS[told["color"]])
            if value != before:
                text = f" {name}: {told['text']}" if at == times[0] else f" {told['text']}"
                ax.text(at, i, text, fontsize=6, va="center", color=PAPER, clip_on=True)
            before = value
    ax.set_yticks([])
    ax.invert_yaxis()
    _clock(ax)


def _text(ax: Axes, panel: Json, found: Found) -> None:
    del found
    text = textwrap.fill(panel["options"]["content"].replace("**", ""), 230)
    ax.text(0.01, 0.85, text, fontsize=7.5, color=INK, va="top", transform=ax.transAxes)
    ax.axis("off")


def _table(ax: Axes, panel: Json, found: Found) -> None:
    del panel
    ((_, series),) = found
    rows = [each["metric"] for each in series]
    names = list(rows[0])
    table = ax.table(
        [[row.get(k, "") for k in names] for row in rows], colLabels=names, loc="center"
    )
    table.set_fontsize(7)
    for cell in table.get_celld().values():
        cell.set(facecolor=PANEL, edgecolor="#2c3235")
        cell.get_text().set_color(INK)
    ax.axis("off")


_DRAWN = {
    **{"timeseries": _timeseries, "stat": _stat, "heatmap": _heatmap, "text": _text},
    **{"state-timeline": _state_timeline, "table": _table},
}
