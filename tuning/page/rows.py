"""Rows of figures, as reports hold them, and tables made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Row = dict[str, str | int | float | bool | None]
"""One line of a report: flat."""
Table = dict[str, dict[str, Row]]
"""Line -> column -> row."""


def table(rows: Iterable[Row], line: str, column: str) -> Table:
    """Rows by the values of two of their columns, in order of appearance."""
    lines: Table = {}
    for row in rows:
        lines.setdefault(str(row[line]), {})[str(row[column])] = row
    return lines


def columns(lines: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """All columns that any line has, in order of appearance."""
    return list(dict.fromkeys(name for cells in lines.values() for name in cells))


def number(row: Mapping[str, object], name: str) -> float:
    """A figure of a row; NaN where there is none."""
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else math.nan


def mean(cells: Mapping[str, Row], names: Iterable[str], value: str = "share") -> float:
    """Mean of a figure over those of the named columns that a line has; NaN if it has none."""
    found = [number(cells[name], value) for name in names if name in cells]
    return sum(found) / len(found) if found else math.nan
