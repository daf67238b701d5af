"""How many processors this process may use, and how many threads compute on them.

Affinity and the cgroup's quota count, versions 1 and 2.

`os.cpu_count` tells those of the machine, of which a container often has a small share.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

_V2 = "cgroup"
_V1 = ("cgroup/cpu", "cgroup/cpu,cpuacct")
_ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What an operator sets for any program that computes, OpenMP's own name first."""


def available_cpus(root: Path = Path("/"), affinity: int | None = None) -> float:
    """Processors' worth of time this process may take, more than 0.

    Args:
        root: where `proc` and `sys` are.
        affinity: how many processors it may be scheduled on, cpuset included. Default: ask.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, "cpu.max", and
    Documentation/scheduler/sched-bwc.rst for version 1.
    """
    if affinity is None:
        affinity = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _folders(root) if (quota := _quota(folder)) is not None]
    return min([float(affinity), *quotas])


def _folders(root: Path) -> list[Path]:
    """The folders of this process's cgroup and of those it is in; each may have a quota.

    Inside a container the paths may be the host's, which are not there: what is there counts, and
    that is the mount itself at least.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    mounts = root / "sys/fs"
    folders = [mounts / top for top in (_V2, *_V1)]
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = _V1 if controllers else (_V2,)
        inside = PurePosixPath(name).relative_to("/")
        for path in (inside, *inside.parents):
            folders += [mounts / top / path for top in tops]
    return folders


def _quota(folder: Path) -> float | None:
    """Processors that a cgroup's quota is worth; None where there is none."""
    both = _words(folder / "cpu.max")  # version 2: "max 100000" or "150000 100000"
    if not both:
        both = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    if len(both) != 2 or both[0] == "max":
        return None
    quota, period = (int(word) for word in both)
    return quota / period if quota > 0 and period > 0 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def thread_count(wanted: int | Literal["auto"], environment: Mapping[str, str]) -> int:
    """Threads that one operation of torch computes with.

    `auto` is what OMP_NUM_THREADS or MKL_NUM_THREADS say, and 1 where neither is set. Batches this
    small are done before a second thread has woken up, and the event loop needs that core: with
    two threads on two cores enforce was 1.7 to 10 times slower (`python -m loadtests.overhead`,
    with OMP_NUM_THREADS=1 and without, before it was set to 1). More pays only where a pass takes
    milliseconds and processors are idle: large images, few workers.
    """
    if wanted != "auto":
        return wanted
    # OMP_NUM_THREADS may be a list, one for each level of nesting; the first is the outermost.
    given = (environment.get(name, "").partition(",")[0].strip() for name in _ENVIRONMENT)
    return next((int(text) for text in given if text.isdecimal() and int(text) > 0), 1)


def advice(workers: int, threads: int, cpus: float) -> str | None:
    """What to change where more threads would compute than there are processors; None if nothing.

    Args:
        workers: processes.
        threads: that each computes with.
        cpus: `available_cpus`.
    """
    if workers * threads <= max(1.0, cpus):
        return None
    return (
        f"{workers} workers with {threads} compute threads each, but the cgroup and affinity leave "
        f"{cpus:g} processors: start at most {suggested_workers(cpus, threads)} workers, or set "
        "torch_threads: 1"
    )


def suggested_workers(cpus: float, threads: int = 1) -> int:
    """How many workers the processors are enough for, the model server's share not counted."""
    return max(1, int(cpus // threads))
