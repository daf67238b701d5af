"""What `breakwater diff` prints: a table, the samples affected, and what cannot be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from detectors.binomial import lower_bound, upper_bound
from proxy.history.listing import printable
from tuning.diff import Difference, Policy

OUTCOMES = ("both", "only_current", "only_new", "neither")
"""Which of the policies find a sample suspicious."""
_LABELS = {"all": None, "benign": "benign", "adversarial": "adversarial", "no label": ""}
_SIDE = 0.975  # of each bound of a 95 % interval


def report(found: Difference, current: Policy, new: Policy, limit: int) -> dict[str, Any]:
    """The comparison as plain values.

    Args:
        limit: most samples listed.
    """
    recorded, known = found.recorded, found.known
    affected = np.flatnonzero(found.affected)
    return {
        "model": recorded.model,
        "current": {"file": str(current.file), **current.sweep.policy()},
        "new": {"file": str(new.file), **new.sweep.policy()},
        "recorded": len(recorded.ids),
        "seen": recorded.seen,
        "compared": int(known.sum()),
        "untold": {
            "samples": int((~known).sum()),
            "detectors": list(found.untold),
            "series": int(recorded.chained.sum()),
        },
        "rows": [_row(found, name, label) for name, label in _LABELS.items()],
        "actions": _actions(found),
        "delayed": int(found.delayed.sum()),
        "affected": len(affected),
        "samples": [_sample(found, row) for row in affected[:limit].tolist()],
    }


def _row(found: Difference, name: str, label: str | None) -> dict[str, Any]:
    """Counts and shares of one label, flat."""
    chosen = found.known if label is None else found.known & (found.recorded.labels == label)
    now, then = found.current.suspicious, found.new.suspicious
    masks = (now & then, now & ~then, ~now & then, ~now & ~then)
    total = int(chosen.sum())
    row: dict[str, Any] = {"label": name, "samples": total}
    for outcome, mask in zip(OUTCOMES, masks, strict=True):
        row |= _share(outcome, int((chosen & mask).sum()), total)
    return row | _share("affected", int((chosen & found.affected).sum()), total)


def _share(name: str, count: int, total: int) -> dict[str, Any]:
    """A count, its share, and the share's 95 % Clopper-Pearson interval."""
    if not total:
        return {name: count, f"{name}_share": None, f"{name}_low": None, f"{name}_high": None}
    return {
        name: count,
        f"{name}_share": count / total,
        f"{name}_low": lower_bound(count, total, _SIDE),
        f"{name}_high": upper_bound(count, total, _SIDE),
    }


def _actions(found: Difference) -> list[dict[str, Any]]:
    pairs = np.stack([found.current.actions, found.new.actions], axis=1)[found.known]
    if not len(pairs):
        return []
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    return [
        {"current": str(now), "new": str(then), "samples": int(count)}
        for (now, then), count in zip(kinds, counts, strict=True)
    ]


def _sample(found: Difference, row: int) -> dict[str, Any]:
    return {
        "id": str(found.recorded.ids[row]),
        "label": str(found.recorded.labels[row]),
        "current": str(found.current.actions[row]),
        "new": str(found.new.actions[row]),
        "current_verdict": _word(found.current.suspicious, row),
        "new_verdict": _word(found.new.suspicious, row),
    }


def _word(suspicious: npt.NDArray[np.bool_], row: int) -> str:
    return "suspicious" if suspicious[row] else "pass"


def show(told: dict[str, Any], console: Console) -> None:
    """Print a report for people."""
    parts: list[RenderableType] = [Text(_heading(told)), _table(told["rows"])]
    changes = [each for each in told["actions"] if each["current"] != each["new"]]
    parts += [Text(f"  {each['current']} -> {each['new']}: {each['samples']}") for each in changes]
    if told["delayed"]:
        parts.append(Text(f"  {told['delayed']} would wait for being purified, and do not now"))
    if told["samples"]:
        parts.append(_listing(told))
    parts += [Text(line) for line in _untold(told)]
    console.print(Group(*parts))


def _heading(told: dict[str, Any]) -> str:
    return (
        f"{printable(told['model'])}: {told['affected']} of {told['compared']} recorded samples "
        f"affected (of {told['seen']} seen)"
    )


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Suspicious to", caption="shares with their 95 % intervals")
    table.add_column("label")
    table.add_column("samples", justify="right")
    for heading in ("both", "only current", "only new", "neither"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row["samples"] or row["label"] == "all":
            cells = [_cell(row, outcome) for outcome in OUTCOMES]
            table.add_row(row["label"], str(row["samples"]), *cells)
    return table


def _cell(row: dict[str, Any], outcome: str) -> str:
    count, low, high = (row[f"{outcome}{part}"] for part in ("", "_low", "_high"))
    return str(count) if low is None else f"{count}\n{100 * low:.2f}-{100 * high:.2f} %"


def _listing(told: dict[str, Any]) -> Table:
    more = told["affected"] - len(told["samples"])
    caption = f"and {more} more; --limit shows them" if more else None
    table = Table(title="Affected, newest first", caption=caption)
    for heading in ("sample", "label", "now", "then"):
        table.add_column(heading, overflow="fold")
    for each in told["samples"]:
        now = f"{each['current_verdict']}, {each['current']}"
        then = f"{each['new_verdict']}, {each['new']}"
        # What is between brackets would be markup.
        cells = (printable(each["id"]), printable(each["label"]), now, then)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _untold(told: dict[str, Any]) -> list[str]:
    """What recorded scores do not show."""
    lines = []
    lacks = told["untold"]
    if lacks["detectors"]:
        names = ", ".join(map(printable, lacks["detectors"]))
        lines.append(
            f"Not comparable: {names}. What was recorded has no such scores, or they were learned "
            "from other data; to see them on live traffic, make the new file a shadow: "
            f"shadow: {{policy: {printable(told['new']['file'])}}}"
        )
    if lacks["samples"]:
        lines.append(
            f"{lacks['samples']} samples cannot be compared: a detector did not look at them, or "
            "failed."
        )
    if lacks["series"]:
        lines.append(
            f"{lacks['series']} samples belong to a series of queries: whether the new policy's "
            "query_attacks would raise the same alarms is not told."
        )
    return lines
