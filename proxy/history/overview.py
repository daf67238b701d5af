"""What several workers say of the history they have in common: for their supervisor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_LEAST = ("first_alarm",)
"""Of these fields of a principal's the smallest counts, of the others the largest."""


def merged(overviews: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the answers of several processes to `GET /history` as one.

    They tell of the same memory, a moment apart: whoever knows most is right.
    """
    every = list(overviews)
    return {
        "remembered": max((each["remembered"] for each in every), default=0),
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
        {name: (min if name in _LEAST else max)(each[name] for each in same) for name in same[0]}
        for same in found.values()
    ]
    return sorted(every, key=lambda s: (-s["quarantined_for_s"], -s["last_alarm"]))
