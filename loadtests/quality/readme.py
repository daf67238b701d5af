"""The README's tables of what is and is not caught, from the rows of a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from loadtests.quality.detection import ELEVEN
from loadtests.quality.findings import LOOSE, STRICT, Findings, at, title
from tuning.page.rows import Row, Table, columns, mean, number, table

BEGIN, END = "<!-- quality: begin -->", "<!-- quality: end -->"
_SHOWN = ("pgd2", "pgd8", "smooth8", "deepfool", "cw", "square8", "patch8")
"""Attacks in the table of purifiers: one or two of each kind, so that it fits on a page."""


def update(readme: Path, rows: Sequence[Row]) -> None:
    """Replace what is between the two markers; the rest of the file stays as it is.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{readme} needs one line {BEGIN!r} and, after it, one line {END!r}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    written = f"{before}{BEGIN}\n{tables(rows)}\n{END}{after}"
    if written != text:
        readme.write_text(written, encoding="utf-8")


def tables(rows: Sequence[Row]) -> str:
    """What stands between the markers: Markdown, the same for the same rows."""
    findings = Findings.of(rows)
    parts = []
    if findings.attacks:
        parts.append(_caught(findings))
    if findings.benign:
        parts.append(_flagged(findings))
    if findings.purified:
        parts.append(_purified(table(findings.purified, "served", "images")))
    return "\n\n".join(parts)


def _caught(findings: Findings) -> str:
    """One line an attack, and the means that the goals are about."""
    strict, loose = findings.caught(STRICT), findings.caught(LOOSE)

    def shares(name: str) -> list[str]:
        pairs = ((strict[tier].get(name), loose.get(tier, {}).get(name)) for tier in strict)
        return [_pair(_share(first), _share(second)) for first, second in pairs]

    lines = [[title(attack), *shares(attack)] for attack in columns(strict)]
    means = [
        _pair(_two(mean(strict[tier], ELEVEN)), _two(mean(loose.get(tier, {}), ELEVEN)))
        for tier in strict
    ]
    lines.append(["**mean of eleven**", *means])
    told = at(findings.attacks, STRICT)
    counts = sorted({round(number(row, "samples")) for row in told})
    wide = max((number(row, "high") - number(row, "low") for row in told), default=math.nan)
    note = (
        f"{_range(counts)} successful attacks of each kind; 95 % intervals are at most "
        f"{wide:.2f} wide."
    )
    return f"{_grid(['attack', *strict], lines)}\n\n{note}"


def _flagged(findings: Findings) -> str:
    """Benign images flagged, where 1 % (5 %) of the worst group is wanted."""
    strict, loose = findings.flagged(STRICT), findings.flagged(LOOSE)

    def line(name: str, role: str, *, mean_of: bool = False) -> list[str]:
        cells = [name]
        for tier in strict:
            found = []
            for by in (strict[tier], loose.get(tier, {})):
                shares = [number(row, "share") for key, row in by.items() if key.startswith(role)]
                middle = sum(shares) / max(1, len(shares)) if mean_of else max(shares, default=0.0)
                found.append(_percent(middle if shares else math.nan))
            cells.append(_pair(*found))
        return cells

    lines = [
        line("clean", "fresh/clean"),
        line("mean of the groups calibrated on", "fresh/", mean_of=True),
        line("worst of them", "fresh/"),
        line("worst kind never calibrated on", "unseen/"),
    ]
    return _grid(["benign, flagged", *strict], lines)


def _purified(served: Table) -> str:
    """Accuracy of what is served."""
    sets = ["fresh/clean", *(f"attack/{name}" for name in _SHOWN)]
    sets = [name for name in sets if any(name in cells for cells in served.values())]
    lines = [[name, *(_share(cells.get(key)) for key in sets)] for name, cells in served.items()]
    return _grid(["served answer, accuracy", *map(title, sets)], lines)


def _grid(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)
    )


def _pair(strict: str, loose: str) -> str:
    return strict if loose == "-" else f"{strict} ({loose})"


def _share(row: Row | None) -> str:
    return "-" if row is None else _two(number(row, "share"))


def _two(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def _range(counts: Sequence[int]) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
