"""What is done to the sidecar, what it promises then, and what others may notice of it."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.overload.scene import CONNECTIONS, IN_FLIGHT, MEMORY_MIB, STREAMS

_BUSY = frozenset({"RESOURCE_EXHAUSTED"})
_HOLDING_MIB = MEMORY_MIB
"""Where clients can make the sidecar hold megabytes: what `inflow.max_memory_mb` says, and what
comes in between two looks at it."""
_OVERSHOOT_MIB = 512
_IDLE_MIB = 200


@dataclass(frozen=True)
class Situation:
    """One kind of overload.

    Args:
        name: of the row.
        attack: one of `attacker.ATTACKS`.
        promised: in one line, what an operator may rely on.
    """

    name: str
    attack: str
    promised: str
    tolerated: frozenset[str] = frozenset()
    """What others may be told meanwhile, besides right answers."""
    most_mib: int = _IDLE_MIB
    """Memory beyond what the sidecar has at rest."""
    seconds: float = 10.0
    overload: float = 0.0
    """Requests a second, in multiples of what is served."""


SITUATIONS = (
    Situation(
        "10x overload",
        "flood",
        f"{IN_FLIGHT} in progress, the rest refused at once",
        tolerated=_BUSY,
        most_mib=512,
        overload=10,
    ),
    Situation("2x overload", "flood", "the same", tolerated=_BUSY, overload=2),
    Situation("1,000 connections", "crowd", "all are served", seconds=15),
    Situation(
        "too many connections",
        "too_many",
        f"{CONNECTIONS} stay, more are closed at once",
        most_mib=300,
    ),
    Situation("churn", "churn", "each connection is served"),
    Situation(
        "slow writers", "slow_writers", "hold no permit; the longest to wait give way", most_mib=300
    ),
    Situation(
        "slow writers of 10 MB",
        "fat_writers",
        "give way where memory is short",
        tolerated=_BUSY,
        most_mib=_HOLDING_MIB + _OVERSHOOT_MIB,
    ),
    Situation(
        "slow readers",
        "slow_readers",
        "their connections are ended past a bound in bytes",
        tolerated=_BUSY,
        most_mib=_HOLDING_MIB,
    ),
    Situation(
        "readers that never read",
        "deaf_readers",
        "the same",
        tolerated=_BUSY,
        most_mib=_HOLDING_MIB,
    ),
    Situation("cancel storm", "cancel", "others do not notice", tolerated=_BUSY),
    Situation(
        "100 MB messages",
        "large",
        "as many as fit, the rest refused; larger than allowed: refused unread",
        tolerated=_BUSY,
        most_mib=_HOLDING_MIB + _OVERSHOOT_MIB,
        seconds=15,
    ),
    Situation(
        "long streams",
        "streams",
        f"{STREAMS} are open and in order, one more is refused at once",
        tolerated=_BUSY,
        seconds=20,
    ),
    Situation("pings unread", "pings", "their connections are ended"),
    Situation("settings unread", "settings", "their connections are ended"),
    Situation("empty frames", "empty", "cost no memory"),
    Situation("endless headers", "continuations", "are refused"),
    Situation("large metadata", "headers", "is refused"),
    Situation("rapid resets", "resets", "cost no memory, others are served"),
)
QUICK = ("10x overload", "slow readers", "100 MB messages", "rapid resets")
