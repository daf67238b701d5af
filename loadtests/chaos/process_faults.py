"""What can happen to our own processes: detectors, workers, the supervisor, their limits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from loadtests.chaos.fault import AWAY, Fault
from loadtests.chaos.scene import Scene

_DECIDES = "on_failure decides: open passes and counts, closed refuses; the others go on"
_LOST = frozenset({"UNAVAILABLE", "CANCELLED"})


@contextlib.asynccontextmanager
async def _told(scene: Scene, *, word: str) -> AsyncIterator[None]:
    scene.switch.write_text(word)
    try:
        yield
    finally:
        scene.switch.write_text("")


@contextlib.asynccontextmanager
async def _worker(scene: Scene, *, number: signal.Signals) -> AsyncIterator[None]:
    victim = scene.workers[0]
    os.kill(victim, number)
    try:
        yield
    finally:
        if number is signal.SIGSTOP:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _dying(scene: Scene) -> AsyncIterator[None]:
    """A worker is killed, and its successor hears SIGHUP while it starts."""
    os.kill(scene.workers[0], signal.SIGKILL)
    for _ in range(40):
        await asyncio.sleep(0.1)
        os.kill(scene.sidecar.pid, signal.SIGHUP)
    yield


@contextlib.asynccontextmanager
async def _supervisor_stopped(scene: Scene) -> AsyncIterator[None]:
    os.kill(scene.sidecar.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(scene.sidecar.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _few_descriptors(scene: Scene) -> AsyncIterator[None]:
    """Hardly any descriptor is left, and strangers hold connections open."""
    pids = scene.workers
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    for pid in pids:
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 12, before[pid][1]))
    host, _, port = scene.settings["listen"].rpartition(":")
    strangers = []
    try:
        for _ in range(400):
            with contextlib.suppress(OSError):
                strangers.append(socket.create_connection((host, int(port)), 1))
        yield
    finally:
        for each in strangers:
            each.close()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before[pid])


@contextlib.asynccontextmanager
async def _little_memory(scene: Scene) -> AsyncIterator[None]:
    """No more than 64 MiB of addresses may be added, as under a tight limit."""
    pids = scene.workers
    before = {pid: resource.prlimit(pid, resource.RLIMIT_AS) for pid in pids}
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_AS, (_addresses(pid) + (1 << 26), before[pid][1]))
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_AS, before[pid])


def _addresses(pid: int) -> int:
    """Bytes of addresses a process has mapped."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def faults() -> list[Fault]:
    """All of them."""
    told = (
        ("raises", "raise"),
        ("meets a CUDA error", "cuda"),
        ("is out of memory", "memory"),
        ("gives NaN", "nan"),
    )
    refused = frozenset({"refused", "RESOURCE_EXHAUSTED"})
    return [
        *(
            Fault(f"detector {name}", _DECIDES, partial(_told, word=word), refused, suspends=True)
            for name, word in told
        ),
        Fault(
            "detector hangs",
            f"within budget_ms {_DECIDES}",
            *(partial(_told, word="hang"), refused | AWAY),
            suspends=True,
            lasts_s=8.0,
        ),
        Fault(
            "detector hangs for good",
            f"{_DECIDES}; after 80 s the workers are replaced",
            *(partial(_told, word="hang"), refused | AWAY),
            suspends=True,
            lasts_s=72.0,
            restarts=2,
            metric="breakwater_worker_restarts_total",
            recovers_s=40.0,
        ),
        Fault(
            "worker killed (SIGKILL)",
            "UNAVAILABLE for what it had; the others serve, it is replaced",
            *(partial(_worker, number=signal.SIGKILL), _LOST),
            unready=False,
            restarts=1,
        ),
        Fault(
            "worker killed, SIGHUP while its successor starts",
            "the successor starts all the same",
            *(_dying, _LOST),
            unready=False,
            restarts=1,
        ),
        Fault(
            "worker hung (SIGSTOP)",
            "found out and replaced within 20 s; the others serve",
            *(partial(_worker, number=signal.SIGSTOP), _LOST | {"DEADLINE_EXCEEDED"}),
            unready=False,
            restarts=1,
            lasts_s=22.0,
        ),
        Fault("supervisor hung (SIGSTOP)", "workers serve on", _supervisor_stopped),
        Fault(
            "descriptors exhausted",
            "who is connected is served; new connections wait or fail; all well afterwards",
            *(_few_descriptors, AWAY),
            suspends=True,
        ),
        Fault(
            "memory exhausted (RLIMIT_AS)",
            "requests are refused, or the worker ends and is replaced",
            *(_little_memory, AWAY | {"INTERNAL", "RESOURCE_EXHAUSTED"}),
            suspends=True,
            restarts=2,
            recovers_s=40.0,
        ),
    ]
