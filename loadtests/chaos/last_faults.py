"""Faults that the sidecar does not survive, or must not: tried last, and not under load."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from loadtests.chaos.meanwhile import until
from loadtests.chaos.scene import Scene

LEAVES_S = 15.0
MOST_CUT = 4
"""Two workers write to two kinds of full disk."""

Ending = tuple[str, str, str, bool]
"""Name, promise, what was seen, and whether it was kept."""


async def run(scene: Scene) -> list[Ending]:
    """Look at what the faults have left, then kill the supervisor and see its workers leave."""
    return [_audit(scene), await _supervisor_killed(scene)]


def _audit(scene: Scene) -> Ending:
    bad, lines = scene.bad_audit_lines()
    promised = "each line whole, but one that was cut for each time the disk was full"
    return ("audit log after all", promised, f"{bad} of {lines} lines cut", bad <= MOST_CUT)


async def _supervisor_killed(scene: Scene) -> Ending:
    workers = scene.workers
    began_s = time.monotonic()
    os.kill(scene.sidecar.pid, signal.SIGKILL)
    await until(lambda: not any(map(_runs, workers)), LEAVES_S)
    left = sum(map(_runs, workers))
    took_s = time.monotonic() - began_s
    seen = f"{left} of {len(workers)} left after {took_s:.1f} s"
    promised = f"its workers end within {LEAVES_S:g} s"
    return ("supervisor killed (SIGKILL)", promised, seen, left == 0)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
