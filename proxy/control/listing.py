"""Policies and records for people. Much of it is text that clients choose: all of it is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.history.listing import printable
from proxy.pb.breakwater.v1 import control_pb2 as pb

_STYLES = {"suspicious": "bold red", "failed": "yellow"}


def change(answer: pb.PolicyChange, *, dry_run: bool) -> Text:
    """What changing the policy came to."""
    lines = [printable(line) for line in answer.changes]
    if answer.problems:
        lines = [*map(printable, answer.problems), "Nothing was changed."]
    elif not lines:
        lines = ["No setting differs."]
    if answer.restart and not answer.problems:
        fields = ", ".join(answer.restart)
        lines.append(f"Only a restart puts these in force: {fields}.")
    if answer.applied:
        lines.append(f"In force. Digest {answer.digest}.")
    elif dry_run and not answer.problems:
        lines.append("This is a dry run: nothing was changed.")
    return Text("\n".join(lines))


def text(policy: str) -> str:
    """A policy's text for a terminal: line ends and tabs stay, what else it acts on is escaped."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in policy
    )


def policy_state(policy: pb.Policy) -> Text:
    """Where the policy is and how it is doing, without its text."""
    lines = [f"{printable(policy.path)}, digest {policy.digest}"]
    if policy.in_force:
        lines.append(f"in force, generation {policy.generation}")
    elif policy.refusal:
        lines.append(f"NOT in force, refused: {printable(policy.refusal)}")
    else:
        lines.append("NOT in force: it was changed since, or not all workers have it yet")
    if not policy.writable:
        lines.append("read-only here: change it at its source")
    if policy.has_previous:
        lines.append("`breakwater policy rollback` goes back to the text before it")
    return Text("\n".join(lines))


def page(records: Sequence[pb.Record]) -> RenderableType:
    """Records as a table, newest first."""
    if not records:
        return Text("Nothing suspicious of late.")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_lines=True)
    for name in ("time", "sample", "verdict", "action"):
        table.add_column(name, overflow="fold")  # ids and names are to be copied, not guessed
    for each in records:
        time, model, verdict, score, limit, action, principal, id_, why = map(
            printable, _columns(each)
        )
        table.add_row(
            # Two lines a sample: its id alone takes half of a terminal's 80 columns.
            *(Text(time), Text(f"{id_}\n{model}, {principal}")),
            *(Text(f"{verdict}\n{score} of {limit}"), Text(f"{action}\n{why}")),
            style=_STYLES.get(each.verdict, ""),
        )
    return Group(table, Text("Say what one was: breakwater label ID benign|adversarial"))


def line(record: pb.Record) -> Text:
    """A record on one line."""
    time, model, verdict, score, limit, action, principal, id_, why = map(
        printable, _columns(record)
    )
    total = record.stage_ms.get("total")
    took = "" if total is None else f"  {total:.1f} ms"
    text = f"{time}  {verdict:<10}  {model}  {score} of {limit}  {action}  {principal}  {id_}{took}"
    return Text(f"{text}  {why}".rstrip(), style=_STYLES.get(record.verdict, ""))


def _columns(record: pb.Record) -> tuple[str, ...]:
    when = datetime.fromtimestamp(record.time_s).astimezone()
    marks = [f"chain of {record.chain}"] if record.chain else []
    marks += ["quarantined"] if record.quarantined else []
    if record.shadow:
        other = "another action" if record.shadow == record.verdict else record.shadow
        marks.append(f"shadow: {other}")
    marks += [f"labelled {record.label}"] if record.label else []
    return (
        when.strftime("%H:%M:%S"),
        record.model,
        record.verdict,
        _number(record.score),
        _number(record.threshold),
        record.action,
        record.principal,
        record.id,
        "; ".join(filter(None, (record.reason or record.failure, *marks))),
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"
