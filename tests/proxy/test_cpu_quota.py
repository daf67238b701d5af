"""Quotas read from sample trees of both versions of cgroups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from proxy.cpu_quota import advice, available_cpus, suggested_workers, thread_count

CPU, BOTH = "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"
V1 = "4:memory:/a\n1:cpu,cpuacct:/docker/f00\n0::/\n"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        pytest.param({}, 8, id="no cgroups"),
        pytest.param({"proc/self/cgroup": "0::/\n"}, 8, id="root without quota"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
            1.5,
            id="2, namespaced",
        ),
        pytest.param({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, id="2, unlimited"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pods/pod1/box\n",
                "sys/fs/cgroup/pods/pod1/box/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pods/pod1/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/pods/cpu.max": "400000 100000\n",
            },
            0.5,
            id="2, the smallest above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pods/of/the/host\n",
                "sys/fs/cgroup/cpu.max": "300000 100000\n",
            },
            3,
            id="2, a path of the host",
        ),
        pytest.param(
            {"sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8, id="2, more than the affinity"
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                f"{BOTH}/docker/f00/cpu.cfs_quota_us": "250000\n",
                f"{BOTH}/docker/f00/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="1, in its folder",
        ),
        pytest.param(
            {
                "proc/self/cgroup": V1,
                f"{CPU}/cpu.cfs_quota_us": "200000\n",
                f"{CPU}/cpu.cfs_period_us": "50000\n",
            },
            4,
            id="1, mounted as the root",
        ),
        pytest.param(
            {f"{CPU}/cpu.cfs_quota_us": "-1\n", f"{CPU}/cpu.cfs_period_us": "100000\n"},
            8,
            id="1, unlimited",
        ),
    ],
)
def test_the_quota(tmp_path: Path, files: Mapping[str, str], cpus: float) -> None:
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert available_cpus(tmp_path, affinity=8) == cpus


def test_this_machine() -> None:
    assert 0 < available_cpus() <= 4096


@pytest.mark.parametrize(
    ("workers", "threads", "cpus", "wanted"),
    [(1, 1, 0.5, None), (2, 1, 2.0, None), (2, 2, 4.0, None), (1, 1, 1.0, None)],
)
def test_enough_processors(workers: int, threads: int, cpus: float, wanted: None) -> None:
    assert advice(workers, threads, cpus) is wanted


def test_too_many_threads_are_told() -> None:
    text = advice(4, 2, 2.5)
    assert text is not None
    assert text.startswith("4 workers with 2 compute threads each")
    assert "leave 2.5 processors: start at most 1 workers" in text


def test_suggested_workers() -> None:
    assert [suggested_workers(cpus) for cpus in (0.5, 1.0, 2.5, 8.0)] == [1, 1, 2, 8]
    assert suggested_workers(8.0, 2) == 4


@pytest.mark.parametrize(
    ("wanted", "environment", "count"),
    [
        ("auto", {}, 1),
        ("auto", {"OMP_NUM_THREADS": "3"}, 3),
        ("auto", {"OMP_NUM_THREADS": "4,2"}, 4),
        ("auto", {"MKL_NUM_THREADS": "2"}, 2),
        ("auto", {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"}, 3),
        ("auto", {"OMP_NUM_THREADS": "many"}, 1),
        ("auto", {"OMP_NUM_THREADS": "0"}, 1),
        (5, {"OMP_NUM_THREADS": "3"}, 5),
    ],
)
def test_how_many_threads(
    wanted: int | Literal["auto"], environment: Mapping[str, str], count: int
) -> None:
    assert thread_count(wanted, environment) == count
