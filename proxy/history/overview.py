"""What several processes say of their histories, as one: for the supervisor of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_TOTALS: Mapping[str, Callable[[Iterable[Any]], Any]] = {"alarms": sum, "first_alarm": min}
"""How a field of a principal's is merged; the largest of the others counts."""


def merged(overviews: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the answers of several processes to `GET /history` as one.

    A principal that several know is one: its alarms are added up, and it is in quarantine for as
    long as it is in any of them.
    """
    every = list(overviews)
    return {
        "remembered": sum(each["remembered"] for each in every),
        "shared": _shared([each["shared"] for each in every if each["shared"] is not None]),
        "principals": _principals(one for each in every for one in each["principals"]),
    }


def _shared(states: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The state of the shared store: up where it is for all, else what the first in trouble says.

    Numbers are added up.
    """
    if not states:
        return None
    worst = min(states, key=lambda each: each["state"] == "up")
    numbers = {name for name, value in worst.items() if isinstance(value, int)}
    return {**worst, **{name: sum(each.get(name, 0) for each in states) for name in numbers}}


def _principals(standings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for standing in standings:
        found.setdefault((standing["model"], standing["principal"]), []).append(standing)
    every = [
        {name: _TOTALS.get(name, max)(each[name] for each in same) for name in same[0]}
        for same in found.values()
    ]
    return sorted(every, key=lambda s: (-s["quarantined_for_s"], -s["last_alarm"]))
