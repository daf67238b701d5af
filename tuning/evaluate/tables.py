"""What an evaluation found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Rows = Sequence[Mapping[str, Any]]


def show(console: Console, report: Mapping[str, Any]) -> None:
    """Print the figures most people want first."""
    rows: Rows = report["rows"]
    _attacks(console, [row for row in rows if row["kind"] in ("attack", "transfer")])
    _benign(console, [row for row in rows if row["kind"] in ("benign", "unseen", "ood")])
    _knowing(console, [row for row in rows if row["kind"] == "adaptive"])
    _queries(console, [row for row in rows if row["kind"] == "query"])
    _latency(console, [row for row in rows if row["kind"] == "latency"])


def _attacks(console: Console, rows: Rows) -> None:
    columns = ("attack", "threat", "succeeds", "flagged", "at 1 %", "at 5 %", "AUROC")
    actions = ("undefended", "purify", "block")
    table = Table(title="Attacks: share that succeeds, share of those flagged, robust accuracy")
    for column in (*columns, *actions, "learned from"):
        table.add_column(column)
    for row in rows:
        shares = (_share(row, name) for name in ("success", "tpr", "tpr_at_1", "tpr_at_5"))
        robust = (_plain(row.get(f"robust_{name}")) for name in ("none", "purify", "block"))
        table.add_row(
            *(escape(str(row["name"])), str(row["threat"]), *shares, _plain(row["auroc"])),
            *robust,
            "yes" if row["tuned_on"] else "",
        )
    _print(console, table, rows)


def _benign(console: Console, rows: Rows) -> None:
    table = Table(title="Benign images flagged at the calibrated threshold")
    for column in ("images", "kind", "flagged", "accuracy", "purify", "block"):
        table.add_column(column)
    for row in rows:
        accuracies = (_plain(row.get(f"accuracy_{name}")) for name in ("none", "purify", "block"))
        table.add_row(str(row["name"]), str(row["kind"]), _share(row, "fpr"), *accuracies)
    _print(console, table, rows)


def _knowing(console: Console, rows: Rows) -> None:
    table = Table(title="Who knows everything: wrong answers got through, of the images tried")
    for column in ("way", "bound", "defended", "undefended"):
        table.add_column(column)
    for row in rows:
        if "skipped" in row:
            console.print(f"adaptive attacks left out: {row['skipped']}", markup=False)
            continue
        table.add_row(
            str(row["branch"]),
            f"{row['eps_255']}/255",
            _share(row, "strongest"),
            _share(row, "undefended_strongest"),
        )
    _print(console, table, [row for row in rows if "skipped" not in row])


def _queries(console: Console, rows: Rows) -> None:
    table = Table(title="Attacks by queries through the running sidecar")
    for column in ("attack", "action", "succeeds", "unflagged", "noticed", "queries", "noticed at"):
        table.add_column(column)
    for row in rows:
        shares = (_share(row, name) for name in ("success", "unflagged_success", "detected"))
        moments = (_plain(row[name]) for name in ("queries_median", "detected_at_median"))
        table.add_row(str(row["name"]), str(row["action"]), *shares, *moments)
    _print(console, table, rows)


def _latency(console: Console, rows: Rows) -> None:
    table = Table(title="Latency, milliseconds: what the defence adds to pass-through")
    for column in ("action", "traffic", "p50", "p99", "added p50", "added p99"):
        table.add_column(column)
    for row in rows:
        names = ("p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms")
        table.add_row(str(row["action"]), str(row["traffic"]), *(_plain(row[n]) for n in names))
    _print(console, table, rows)


def _print(console: Console, table: Table, rows: Rows) -> None:
    if rows:
        console.print(table)


def _share(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "-"
    return f"{row[name]:.0%} ({row[f'{name}_low']:.0%}-{row[f'{name}_high']:.0%})"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
