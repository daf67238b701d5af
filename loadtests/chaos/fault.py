"""What a fault is: a name, a promise, and what is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from loadtests.chaos.scene import Scene

Doing = Callable[[Scene], AbstractAsyncContextManager[None]]

AWAY = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "refused"})
"""What clients of a model server that is gone, hung or late are told."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: of the row.
        promised: in one line, what an operator may rely on.
        do: begins the fault on entry, and undoes it on exit.
    """

    name: str
    promised: str
    do: Doing
    tolerated: frozenset[str] = frozenset()
    """Statuses and outcomes other than right ones that clients may see until the recovery."""
    suspends: bool = False
    """Whether `on_failure: open` may let tampered inputs pass, counted, until the recovery."""
    unready: bool | None = None
    """Whether /ready must say 503 meanwhile (True), must not (False), or may (None)."""
    restarts: int = 0
    """Workers that this fault ends itself."""
    lasts_s: float = 3.0
    recovers_s: float = 15.0
    """Within so much of its end everything must be in order again."""
    metric: str = ""
    """A series of /metrics that must have grown."""
