"""The goals of a study as HTML: how many are met, and which are not."""

from __future__ import annotations

import html
from collections.abc import Sequence

from loadtests.quality.findings import title
from tuning.page.markup import cell
from tuning.page.rows import Row

_GOAL = ("figure", "value", "to_reach", "met")
_MANY = 8
"""Of a figure with more goals than that, only the missed ones are listed."""


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
