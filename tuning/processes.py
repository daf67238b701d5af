"""What processes cost, as Linux counts it: CPU time and resident memory of a tree of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(root: int) -> float:
    """CPU seconds, user and system, of a process and its descendants, ended ones included."""
    return sum(sum(int(f) for f in fields[11:15]) for fields in _tree(root)) / _TICKS_PER_S


def resident_bytes(root: int) -> int:
    """Resident size of a process and its descendants; shared pages count once per process."""
    return sum(int(fields[21]) for fields in _tree(root)) * _PAGE_BYTES


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on, so that index 0 is field 3 of proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _tree(root: int) -> Iterator[list[str]]:
    """Stat fields of a process and all its descendants."""
    parents: dict[int, list[tuple[int, list[str]]]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = _stat(int(folder.name))
                parents.setdefault(int(fields[1]), []).append((int(folder.name), fields))
    yield _stat(root)
    waiting = [root]
    while waiting:
        for pid, fields in parents.get(waiting.pop(), []):
            waiting.append(pid)
            yield fields
