"""What several workers found, as one; imports no torch, since the supervisor does not either."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


def merged(parts: Sequence[Mapping[str, Any]], ids: Collection[str] | None) -> dict[str, Any]:
    """One worker's answer with the live samples of all.

    Args:
        parts: what `Explorer.explore` said in each worker, one at least; they have policy,
            calibration and evaluation in common but for the moment of a reload, when those that do
            not agree with the first are left out.
        ids: of the live samples to keep; None: all. Workers that saw more traffic keep a smaller
            share of it, so that all of everything would be no fair sample.
    """
    first = parts[0]
    same = [part for part in parts if _policies(part) == _policies(first)]
    joined = dict(first)
    joined["live"] = _joined([part["live"] for part in same], [part["live"] for part in same], ids)
    if first["candidate"] is not None:
        others = [part["candidate"]["live"] for part in same]
        live = _joined(others, [part["live"] for part in same], ids)
        # How many are unknown among those that are kept.
        live["unknown"] = sum(each is None for each in live["fused"])
        joined["candidate"] = {**first["candidate"], "live": live}
    return joined


def _policies(part: Mapping[str, Any]) -> tuple[Any, Any]:
    other = part["candidate"]
    return part["current"], other and {k: v for k, v in other.items() if k in part["current"]}


def _joined(
    lives: Sequence[Mapping[str, Any]],
    named: Sequence[Mapping[str, Any]],
    ids: Collection[str] | None,
) -> dict[str, Any]:
    """Columns one after the other, of the samples that are kept; numbers added up."""
    wanted = None if ids is None else frozenset(ids)
    rows = [
        [row for row, id_ in enumerate(each["ids"]) if wanted is None or id_ in wanted]
        for each in named
    ]
    joined: dict[str, Any] = {}
    for key, value in lives[0].items():
        if isinstance(value, list):
            pairs = zip(lives, rows, strict=True)
            joined[key] = [live[key][row] for live, chosen in pairs for row in chosen]
        else:
            joined[key] = sum(live[key] for live in lives)
    return joined
