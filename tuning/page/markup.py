"""Pieces of the page: tables, lists and pictures as HTML."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from tuning.page.canvas import SERIES
from tuning.page.rows import Row, Table, columns, number

_SMALL = 100
"""Images of fewer pixels on a side are enlarged with their pixels visible."""


def note(text: str) -> str:
    """What a section is about."""
    return f'<p class="note">{html.escape(text)}</p>'


def facts(told: Sequence[tuple[str, str]]) -> str:
    """Names and what there is to say of each."""
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(words)}</td></tr>'
        for name, words in told
    )
    return (
        '<div class="scroll" tabindex="0"><table class="prose facts"><tbody>'
        f"{body}</tbody></table></div>"
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
        f'<figure>{legend}<div class="plot" tabindex="0" role="img" aria-label="{label}">'
        f"{drawn}</div></figure>"
    )


def heat(
    lines: Table,
    corner: str,
    value: str = "share",
    *,
    is_loss: bool = False,
    best_of: Literal["column", "line"] = "column",
    titled: Callable[[str], str] = str,
) -> str:
    """Shares as coloured cells; the best of each column or line, for a loss the least, in bold.

    Args:
        lines: the shares.
        corner: what the lines are.
        value: the figure shown.
        is_loss: less is better.
        best_of: what is compared.
        titled: how a reader knows a column.
    """
    names = columns(lines)
    pick = min if is_loss else max
    best = {
        name: pick(number(cells[name], value) for cells in lines.values() if name in cells)
        for name in names
    }
    best_of_line = {
        line: pick((number(cell, value) for cell in cells.values()), default=math.nan)
        for line, cells in lines.items()
    }
    head = "".join(f'<th scope="col">{html.escape(titled(name))}</th>' for name in names)
    body = []
    for line, cells in lines.items():
        shown = []
        for name in names:
            share = number(cells.get(name, {}), value)
            if math.isnan(share):
                shown.append("<td></td>")
                continue
            top = best[name] if best_of == "column" else best_of_line[line]
            mark = f"heat{' loss' * is_loss}{' best' * (share == top)}"
            shown.append(f'<td class="{mark}" style="--v:{share:.3f}">{share:.2f}</td>')
        body.append(f'<tr><th scope="row">{html.escape(line)}</th>{"".join(shown)}</tr>')
    return (
        '<div class="scroll" tabindex="0"><table class="heats"><thead><tr>'
        f'<th scope="col">{html.escape(corner)}</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
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
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def prose(rows: Sequence[Row]) -> str:
    """Rows of one shape whose cells are sentences; the first names its row."""
    head = "".join(f'<th scope="col" class="text">{html.escape(name)}</th>' for name in rows[0])
    body = ""
    for row in rows:
        first, *others = map(cell, row.values())
        cells = "".join(f"<td>{other}</td>" for other in others)
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (
        '<div class="scroll" tabindex="0"><table class="prose">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def shapes(rows: Sequence[Row]) -> str:
    """All rows, one table for each shape, folded."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row), []).append(row)
    return "".join(
        folded(f"{', '.join(shape[:3])} … ({len(some)} rows)", plain(some))
        for shape, some in found.items()
    )


def folded(summary: str, content: str) -> str:
    """HTML that shows when its summary is opened."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


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
    return f'<h3>{html.escape(name)}</h3><div class="pictures">{"".join(shown)}</div>'


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    last = np.ascontiguousarray(np.moveaxis(np.asarray(pixels, dtype=np.uint8), 0, -1))
    file = io.BytesIO()
    Image.fromarray(last[..., 0] if last.shape[-1] == 1 else last).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
