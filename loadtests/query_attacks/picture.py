"""The study's picture: how soon each attack is detected, and what ordinary traffic raises.

python -m loadtests.query_attacks.picture ROWS.json PICTURE.png draws it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from loadtests.harness import Row

NAMES = {
    ("detect", "square"): "Square",
    ("detect", "nes_001"): "NES, sigma 0.001",
    ("detect", "nes_01"): "NES, sigma 0.01",
    ("detect", "hsj"): "HopSkipJump",
    ("detect", "hsj_image"): "HopSkipJump from an image",
    ("detect", "boundary"): "boundary attack",
    ("detect", "simba"): "SimBA",
    ("detect", "sign_opt"): "SignOPT",
    ("blinded", "square_blind"): "blinded Square",
    ("blinded", "nes_blind"): "blinded NES",
    ("blinded", "hsj_blind"): "blinded HopSkipJump",
    ("sybils", "square"): "Square by sybils",
    ("sybils", "nes_01"): "NES by sybils",
    ("sybils", "hsj"): "HopSkipJump by sybils",
}
"""Section and attack, as they are called in the picture, from top to bottom."""
FALSE = {
    "false alarms, independent, %": "unrelated\nimages",
    "false alarms, similar, calibrated kinds, %": "similar,\nknown\nkinds",
    "false alarms, similar, unseen kinds, %": "similar,\nnew\nkinds",
}
_TINTS = {"detect": "#2a78d6", "blinded": "#d79200", "sybils": "#4a3aa7"}
_WANTED = "#eb6834"
_INK, _MUTED, _GRID, _PAGE = "#16141f", "#5d5870", "#e2e2e6", "#fcfcfa"
_TICKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
_TALL = 0.8
"""Of a line's height, what stands for all searches."""
_STYLE: dict[Any, Any] = {  # the names are literals to mypy
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.facecolor": _PAGE,
    "figure.facecolor": _PAGE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
}


def draw(rows: Sequence[Row], file: Path) -> None:
    """Write the picture as PNG; what has not been measured is left out."""
    moments = {
        (str(row["section"]), str(row["attack"])): str(row["detected_at"]).split()
        for row in rows
        if "detected_at" in row
    }
    lines = [key for key in NAMES if moments.get(key)]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 1.6 + 0.36 * max(6, len(lines))), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2.6, 1))
        for place, key in enumerate(reversed(lines)):
            _rising(left, place, key, moments[key])
        _finish(left, [NAMES[key] for key in reversed(lines)])
        _false_alarms(right, rows)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=100)


def _rising(axis: Axes, place: int, key: tuple[str, str], moments: Sequence[str]) -> None:
    """The share detected so far, over the number of the query, as a filled step on its line."""
    at = sorted(int(moment) for moment in moments if moment != "-")
    x = [1, *at, _TICKS[-1]]
    shares = [0.0, *((number + 1) / len(moments) for number in range(len(at)))]
    y = [place + _TALL * share for share in (*shares, shares[-1])]
    tint = _TINTS[key[0]]
    axis.axhline(place, color=_GRID, lw=0.8)
    axis.fill_between(x, place, y, step="post", color=tint, alpha=0.3, lw=0)
    axis.step(x, y, where="post", color=tint, lw=1.6)
    middle = f", median {at[(len(moments) - 1) // 2]}" if 2 * len(at) > len(moments) else ""
    told = f"{100 * shares[-1]:.0f} %{middle}"
    across = axis.get_yaxis_transform()  # shares of the axis in x, data in y
    axis.text(1.02, place + _TALL / 2, told, va="center", transform=across, fontsize=10)


def _finish(axis: Axes, labels: Sequence[str]) -> None:
    axis.set_xscale("log")
    axis.set_xlim(1, _TICKS[-1])
    axis.set_ylim(-0.1, len(labels))
    axis.set_xticks(_TICKS, [f"{tick}" for tick in _TICKS])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks([place + _TALL / 2 for place in range(len(labels))], labels)
    axis.tick_params("y", length=0, labelcolor=_INK)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("queries asked")
    axis.set_title("Searches detected so far, before they succeed", loc="left")


def _false_alarms(axis: Axes, rows: Sequence[Row]) -> None:
    found = {str(row["figure"]): row for row in rows if row.get("figure") in FALSE}
    for place, row in enumerate(found[name] for name in FALSE if name in found):
        low, high = (float(end) for end in str(row["interval"]).split(" to "))
        goal = float(str(row["to_reach"]).split()[1])
        axis.bar(place, float(row["value"] or 0), 0.5, color=_TINTS["detect"])
        axis.vlines(place, low, high, color=_INK, lw=1.4)
        axis.hlines(goal, place - 0.35, place + 0.35, color=_WANTED, ls=(0, (3, 2)), lw=1.6)
    labels = [FALSE[name] for name in FALSE if name in found]
    axis.set_xticks(range(len(labels)), labels)
    axis.tick_params("x", length=0, labelsize=9)
    axis.set_ylim(0, None)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1f} %"))
    axis.set_title("False alarms", loc="left")
    axis.set_xlabel("95 % intervals; dashed: goals", fontsize=9)


def main() -> None:
    """Draw the picture of rows written before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("picture", type=Path)
    chosen = parser.parse_args()
    draw(json.loads(chosen.rows.read_text())["rows"], chosen.picture)


if __name__ == "__main__":
    main()
