"""The rows of a study by what they are about, for the page and for the README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuning.evaluate.titles import NAMES
from tuning.page.rows import Row, Table, number, table

STRICT, LOOSE = "worst group 0.01", "worst group 0.05"
"""The product's own operating points: this rate of false positives in the worst benign group."""
MIXED = "mix 0.01"
"""This rate of false positives over all benign groups together."""

_MARKS = {
    "goals": "to_reach",
    "transferred": "transfer",
    "knowing": "defence",
    "systems": "system",
    "purified": "served",
    "alone": "detector",
    "cascades": "cascade",
    "secrets": "secret",
    "benign": "benign",
    "attacks": "attack",
    "costs": "part",
}
"""Kind of row -> the column that only it has; the first that fits decides."""


@dataclass(frozen=True)
class Findings:
    """Rows by kind, each kind in the order in which they were measured."""

    goals: Sequence[Row]
    attacks: Sequence[Row]
    benign: Sequence[Row]
    alone: Sequence[Row]
    cascades: Sequence[Row]
    secrets: Sequence[Row]
    purified: Sequence[Row]
    systems: Sequence[Row]
    knowing: Sequence[Row]
    transferred: Sequence[Row]
    costs: Sequence[Row]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Findings:
        """Sort rows by the columns they have; those of no known kind are left out."""
        kinds: dict[str, list[Row]] = {kind: [] for kind in _MARKS}
        for row in rows:
            kind = next((kind for kind, mark in _MARKS.items() if mark in row), None)
            if kind is not None:
                kinds[kind].append(row)
        return cls(**kinds)

    def caught(self, point: str) -> Table:
        """Tier -> attack -> share flagged at an operating point."""
        return table(at(self.attacks, point), "tier", "attack")

    def flagged(self, point: str) -> Table:
        """Tier -> benign kind -> share flagged at an operating point."""
        return table(at(self.benign, point), "tier", "benign")


def at(rows: Iterable[Row], point: str) -> list[Row]:
    """The rows of one operating point."""
    return [row for row in rows if row.get("point") == point]


def title(name: str) -> str:
    """How a reader knows an attack or a set of images, e.g. `attack/pgd8` -> PGD 8."""
    role, _, rest = name.rpartition("/")
    plain = NAMES.get(rest, rest.replace("_", " "))
    return f"{plain} (new)" if role == "unseen" else plain


def pivot(rows: Iterable[Row], line: str) -> Table:
    """Rows that hold one share in each column but the first, as a table of shares."""
    return {
        str(row[line]): {name: {"share": number(row, name)} for name in row if name != line}
        for row in rows
    }
