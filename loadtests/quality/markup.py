"""Pieces of the page: tables, lists and pictures as HTML."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from loadtests.harness import Row
from loadtests.quality.canvas import SERIES
from loadtests.quality.findings import Table, columns, number, title

_GOAL = ("figure", "value", "to_reach", "met")
_MANY = 8
"""Of a figure with more goals than that, only the missed ones are listed."""
_SMALL = 100
"""Images of fewer pixels on a side are enlarged with their pixels visible."""


def goals(rows: Sequence[Row]) -> str:
    """How many goals are met; each of them, by figure, those with a missed one first."""
    met = sum(row["met"] is True for row in rows)
    figures: dict[str, list[Row]] = {}
    for row in rows:
        figures.setdefault(str(row["figure"]), []).append(row)
    ordered = sorted(figures.items(), key=lambda item: all(row["met"] for row in item[1]))
    items = "".join(_figure(name, some) for name, some in ordered)
    state = "met" if met == len(rows) else "missed"
    return (
        f'<div class="verdict"><b class="{state}">{met} of {len(rows)}</b> goals met</div>'
        f'<ul class="goals">{items}</ul>'
    )


def _figure(name: str, rows: Sequence[Row]) -> str:
    """One figure with its goals; of many only those that are missed."""
    if len(rows) == 1:
        return f"<li><ul>{_goal(rows[0], name)}</ul></li>"
    met = [row for row in rows if row["met"]]
    missed = [row for row in rows if not row["met"]]
    shown = missed if len(rows) > _MANY else [*missed, *met]
    state = "missed" if missed else "met"
    count = f'<span class="{state}">{len(met)} of {len(rows)}</span>'
    lines = "".join(_goal(row) for row in shown)
    if len(shown) < len(rows):
        lines += f'<li><span class="met">✓</span><span class="what">{len(met)} met</span></li>'
    return f"<li><h3>{html.escape(name)} {count}</h3><ul>{lines}</ul></li>"


def _goal(row: Row, name: str = "") -> str:
    where = [title(str(value)) for column, value in row.items() if column not in _GOAL]
    told = html.escape(", ".join(reversed(where)))
    sign, word = ("✓", "met") if row["met"] else ("✗", "missed")
    wanted = str(row["to_reach"]).replace(">=", "≥").replace("<=", "≤")
    return (
        f'<li><span class="{word}" role="img" aria-label="{word}">{sign}</span>'
        f'<span class="what"><b>{html.escape(name)}</b> {told}</span>'
        f'<span class="value">{cell(row["value"])}</span>'
        f'<span class="wanted">{html.escape(wanted)}</span></li>'
    )


def legend(names: Sequence[str], colours: Sequence[int] | None = None) -> str:
    """The colours of a plot's series; without numbers, in order."""
    items = (
        f'<li><i style="background:var(--s{i % SERIES})"></i>{html.escape(name)}</li>'
        for name, i in zip(names, colours or range(len(names)), strict=True)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def plot(drawn: str, alternative: str, legend: str = "") -> str:
    """A plot with its legend, and words for those who cannot see it."""
    label = html.escape(alternative)
    return (
        f'<figure>{legend}<div class="plot" role="img" aria-label="{label}">{drawn}</div></figure>'
    )


def heat(lines: Table, corner: str, value: str = "share", *, is_loss: bool = False) -> str:
    """Shares as coloured cells; the best of each column, for a loss the least, in bold."""
    names = columns(lines)
    pick = min if is_loss else max
    best = {
        name: pick(number(cells[name], value) for cells in lines.values() if name in cells)
        for name in names
    }
    head = "".join(f'<th scope="col">{html.escape(title(name))}</th>' for name in names)
    body = []
    for line, cells in lines.items():
        shown = []
        for name in names:
            share = number(cells.get(name, {}), value)
            if math.isnan(share):
                shown.append("<td></td>")
                continue
            mark = f"heat{' loss' * is_loss}{' best' * (share == best[name])}"
            shown.append(f'<td class="{mark}" style="--v:{share:.3f}">{share:.2f}</td>')
        body.append(f'<tr><th scope="row">{html.escape(line)}</th>{"".join(shown)}</tr>')
    return (
        f'<div class="scroll"><table class="heats"><thead><tr><th scope="col">{corner}</th>{head}'
        f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def plain(rows: Sequence[Row]) -> str:
    """Rows of one shape as they are."""
    names = list(rows[0])
    kinds = ["" if isinstance(rows[0][n], (int, float)) else ' class="text"' for n in names]
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(name)}</th>'
        for name, kind in zip(names, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{cell(row[n])}</td>" for n, k in zip(names, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def shapes(rows: Sequence[Row]) -> str:
    """All rows, one table for each shape, folded."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row), []).append(row)
    return "".join(
        f"<details><summary>{html.escape(', '.join(shape[:3]))} … ({len(some)} rows)</summary>"
        f"{plain(some)}</details>"
        for shape, some in found.items()
    )


def cell(value: str | float | bool | None) -> str:
    """A value of a row, escaped."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else html.escape(str(value))


def pictures(name: str, images: Mapping[str, npt.NDArray[np.uint8]]) -> str:
    """Images side by side, each (3, H, W) or (1, H, W) with its caption."""
    shown = []
    for caption, pixels in images.items():
        told = html.escape(caption)
        small = ' class="small"' if pixels.shape[1] < _SMALL else ""
        shown.append(
            f'<figure><img{small} src="data:image/png;base64,{_png(pixels)}"'
            f' alt="{html.escape(name)}: {told}"><figcaption>{told}</figcaption></figure>'
        )
    return f'<h3>{html.escape(title(name))}</h3><div class="pictures">{"".join(shown)}</div>'


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    last = np.ascontiguousarray(np.moveaxis(np.asarray(pixels, dtype=np.uint8), 0, -1))
    file = io.BytesIO()
    Image.fromarray(last[..., 0] if last.shape[-1] == 1 else last).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
