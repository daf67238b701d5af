"""How processes are, and what a scrape and a log say of them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Vitals:
    """How the sidecar's processes are."""

    pids: tuple[int, ...]
    resident_mib: float
    descriptors: int
    zombies: int
    restarts: int
    failed_open: int
    internal_errors: int


def is_json(line: bytes) -> bool:
    """Whether a line of a log can be read."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def descriptors_of(pid: int) -> int:
    """How many descriptors a process has."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def total(text: str, metric: str) -> int:
    """The sum of a metric's series in a scrape."""
    lines = (line for line in text.splitlines() if line.startswith(metric))
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))
