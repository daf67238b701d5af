"""What the history knows, for people: who raised alarms, as a table.

Names of principals are text that attackers choose: nothing of it reaches the terminal unescaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.history.quarantine import Standing

_ESCAPE = re.compile(r"\\(\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(0[0-9a-f]|10)[0-9a-f]{4})")


def printable(text: str) -> str:
    r"""The text with what a terminal would act on, or nobody could see, as escapes like \x1b.

    Backslashes are doubled, so that no two texts look the same; `meant` is the way back.
    """
    return "".join(
        "\\\\" if c == "\\" else c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


def meant(text: str) -> str:
    """The text that `printable` shows as this."""
    return _ESCAPE.sub(lambda escape: escape[0].encode().decode("unicode_escape"), text)


def page(
    answer: Mapping[str, Any], standings: Sequence[Standing], *, now: float, most_rows: int
) -> Group:
    """Return what to print.

    Args:
        answer: to `GET /history`.
        standings: its principals, of those models that are of interest.
        now: when that was answered, seconds since 1970.
        most_rows: of the table; it says how many more there are.
    """
    parts: list[RenderableType] = []
    if standings:
        parts.append(_table(standings[:most_rows], now))
    else:
        parts.append(Text("Nobody raised an alarm of late."))
    if len(standings) > most_rows:
        parts.append(Text(f"... and {len(standings) - most_rows:,} more; --json lists all"))
    return Group(*parts, Text(_summary(answer)))


def _table(standings: Sequence[Standing], now: float) -> Table:
    table = Table()
    for name in ("model", "principal"):
        table.add_column(name, overflow="fold")  # names are to be copied, not guessed
    for name in ("alarms", "quarantined for", "longest chain", "last alarm"):
        table.add_column(name, justify="right")
    for each in standings:
        quarantined = each.quarantined_for_s > 0
        table.add_row(
            Text(printable(each.model)),
            Text(printable(each.principal)),
            Text(f"{each.alarms:,}" if each.alarms else "elsewhere"),
            Text(_duration(each.quarantined_for_s) if quarantined else "free"),
            Text(f"{each.longest_chain:,}" if each.longest_chain else "-"),
            Text(f"{_duration(now - each.last_alarm)} ago" if each.alarms else "-"),
            style="bold red" if quarantined else "",
        )
    return table


def _summary(answer: Mapping[str, Any]) -> str:
    shared = answer["shared"]
    if shared is None:
        state = "none"
    else:
        state = printable(str(shared["state"]))
        if queued := shared.get("queued"):
            state += f" ({queued:,} entries wait to be told)"
    text = f"{answer['remembered']:,} queries remembered here. Shared store: {state}."
    if not answer["remembered"] and not answer["principals"]:
        text += "\nOnly queries to models with the detector `history` are remembered."
    return text


def _duration(seconds: float) -> str:
    """Like 40 s, 3 min, 2 h, 5 days: in the unit that suits."""
    for unit, size, below in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 36)):
        if round(seconds / size) < below:
            return f"{max(round(seconds / size), 0)} {unit}"
    return f"{round(seconds / 86400)} days"
