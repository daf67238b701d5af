"""What an evaluation found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tuning.evaluate.titles import TUNED, titled

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
    """The figures that fit into 80 columns; the report has the others."""
    table = _table(
        "Attacks: how many succeed; of those, how many are flagged at the calibrated threshold "
        "(95 % interval) and at 1 % of benign images; right answers by action",
        *("attack", "succeed", "flagged", "at 1 %", "none", "purify", "block"),
    )
    for threat in dict.fromkeys(str(row["threat"]) for row in rows):
        table.add_section()
        table.add_row(f"[bold]{escape(threat)}[/]")
        for row in rows:
            if row["threat"] == threat:
                table.add_row(*_attack(row))
    _print(console, table, rows)


def _attack(row: Mapping[str, Any]) -> tuple[str, ...]:
    learned = f" {TUNED}" if row["tuned_on"] else ""
    shares = (_whole(row.get(name)) for name in ("robust_none", "robust_purify", "robust_block"))
    return (
        escape(titled(str(row["name"])) + learned),
        _whole(row["success"]),
        _share(row, "tpr"),
        _whole(row.get("tpr_at_1")),
        *shares,
    )


def _benign(console: Console, rows: Rows) -> None:
    table = _table(
        "Benign images flagged at the calibrated threshold",
        "images",
        "kind",
        "flagged",
        "accuracy",
        "purify",
        "block",
    )
    for row in rows:
        accuracies = (_plain(row.get(f"accuracy_{name}")) for name in ("none", "purify", "block"))
        table.add_row(titled(str(row["name"])), str(row["kind"]), _share(row, "fpr"), *accuracies)
    _print(console, table, rows)


def _knowing(console: Console, rows: Rows) -> None:
    table = _table(
        "Who knows everything: wrong answers got through, of the images tried",
        "way",
        "bound",
        "defended",
        "undefended",
    )
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
    table = _table(
        "Attacks by queries through the running sidecar; unflagged: by a query that was not "
        "flagged; noticed: some query was flagged; medians of queries",
        *("attack", "action", "succeed", "unflagged", "noticed", "queries", "noticed at"),
    )
    for row in rows:
        moments = (_plain(row[name]) for name in ("queries_median", "detected_at_median"))
        table.add_row(
            *(titled(str(row["name"])), _action(row), _share(row, "success")),
            *(_whole(row["unflagged_success"]), _whole(row["detected"]), *moments),
        )
    _print(console, table, rows)


def _action(row: Mapping[str, Any]) -> str:
    return "none" if row["action"] == "pass-through" else str(row["action"])


def _latency(console: Console, rows: Rows) -> None:
    table = _table(
        "Latency, milliseconds: what the defence adds to pass-through",
        "action",
        "traffic",
        "p50",
        "p99",
        "added p50",
        "added p99",
    )
    for row in rows:
        names = ("p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms")
        table.add_row(str(row["action"]), str(row["traffic"]), *(_plain(row[n]) for n in names))
    _print(console, table, rows)


def _print(console: Console, table: Table, rows: Rows) -> None:
    if rows:
        # A title of its own would be wrapped at the table's width.
        heading, table.title = table.title, None
        console.print(heading, style="bold", highlight=False)
        console.print(table)


def _table(heading: str, *columns: str) -> Table:
    table = Table(title=heading, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column == columns[0])
    return table


def _share(row: Mapping[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "-"
    low, high = (100 * row[f"{name}_{end}"] for end in ("low", "high"))
    return f"{row[name]:.0%} ({low:.0f}-{high:.0f})"


def _whole(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
