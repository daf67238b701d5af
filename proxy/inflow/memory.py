"""The memory of this process: how much there is, and what to do when it gets short."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
from pathlib import Path

from proxy.inflow.untaken import Untaken
from proxy.inflow.waiting import Waiting

log = logging.getLogger(__name__)

_LOOK_S = 0.1
"""Between two looks; reading the figure takes some 15 us."""
_SHARE = 0.75
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LEAST_ENDED = 8


def available_bytes(root: Path = Path("/")) -> int:
    """Memory this process may have: its cgroup's limit (version 2 or 1), or the machine's.

    Args:
        root: where `sys` is.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * _PAGE]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int((root / "sys/fs/cgroup" / name).read_text()))
    return min(limits)


def resident_bytes() -> int:
    """Memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


class MemoryGuard:
    """Looks at the process's memory, and makes room where it is short.

    Args:
        limit_bytes: most there should be; None: three quarters of what there is.
        waiting: calls that are ended to make room.
        untaken: answers that are given up to make room.
    """

    def __init__(self, limit_bytes: int | None, waiting: Waiting, untaken: Untaken) -> None:
        self._limit = limit_bytes or round(_SHARE * available_bytes())
        self._waiting = waiting
        self._untaken = untaken
        self.is_short = False
        """Whether there was too much at the last look."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()

    def look(self) -> None:
        """Look once, and let slow clients give way where there is too much."""
        self._untaken.look()
        was_short, self.is_short = self.is_short, resident_bytes() > self._limit
        if not self.is_short:
            return
        ended = self._waiting.give_way(max(_LEAST_ENDED, len(self._waiting) // 2))
        self._untaken.give_way()
        _give_back()
        if not was_short:
            log.warning("memory is over %d MiB: ended %d calls", self._limit >> 20, ended)


def _give_back() -> None:
    """Hand freed memory back to the system, which glibc would keep for this process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
