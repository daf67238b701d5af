"""Memory that several workers have in common: turns, deaths in the middle of them, versions."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from proxy.history import memory_file
from proxy.history.memory import AT_ONCE_S, ForeignLayoutError, Memory, WorkerMemory
from proxy.history.memory_file import SECRET_BYTES

PATIENT_S = 5.0


@pytest.fixture
def file() -> Iterator[int]:
    file = memory_file.create()
    yield file
    os.close(file)


def worker(file: int, *, layout: str = "one", capacity: int = 10) -> WorkerMemory:
    return WorkerMemory(os.dup(file), layout, capacity)


def test_workers_have_the_same_arrays_and_secret(file: int) -> None:
    first, second = worker(file), worker(file)
    mine, theirs = (each.array((3, 5), np.int32) for each in (first, second))
    more, same = (each.array(7, "S4") for each in (first, second))
    mine[2, 4], more[6] = 9, b"last"
    assert theirs[2, 4] == 9
    assert same[6] == b"last"
    assert first.secret == second.secret != bytes(SECRET_BYTES)


def test_a_process_alone_has_its_own() -> None:
    assert Memory(1).secret != Memory(1).secret
    assert not Memory(1).array(3, np.int64).any()


async def test_only_shared_turns_are_at_the_same_time(file: int) -> None:
    first, second, third = worker(file), worker(file), worker(file)
    with first.at_once(limit_s=PATIENT_S) as mine:
        assert mine
        for shared in (True, False):
            with second.at_once(shared=shared) as theirs:
                assert not theirs
            async with second.turn(shared=shared) as theirs:
                assert not theirs
    with first.at_once(shared=True) as mine, second.at_once(shared=True) as theirs:
        assert mine
        assert theirs
        with third.at_once() as exclusive:
            assert not exclusive
    async with second.turn(limit_s=PATIENT_S) as theirs:
        assert theirs


def test_who_cannot_wait_does_not(file: int) -> None:
    first, second = worker(file), worker(file)
    with first.at_once(limit_s=PATIENT_S):
        waits = []
        for _ in range(50):
            started = time.process_time()
            with second.at_once() as mine:
                assert not mine
            waits.append(time.process_time() - started)
    assert min(waits) < 2 * AT_ONCE_S


def test_a_turn_that_did_not_end_is_repaired_once(file: int) -> None:
    first, second = worker(file), worker(file)
    repaired = []
    second.repair = lambda: repaired.append(second)
    with pytest.raises(ZeroDivisionError), first.at_once():
        _ = 1 / 0
    for _ in range(2):
        with second.at_once(shared=True) as mine:
            assert mine
    assert repaired == [second]
    with pytest.raises(ZeroDivisionError), first.at_once(shared=True):  # wrote nothing
        _ = 1 / 0
    with second.at_once() as mine:
        assert mine
    assert repaired == [second]


def test_the_first_worker_s_capacity_counts(file: int) -> None:
    assert worker(file, capacity=10).capacity == 10
    assert worker(file, capacity=99).capacity == 10


def test_another_version_s_arrays_are_left_alone(file: int) -> None:
    first = worker(file)
    with pytest.raises(ForeignLayoutError):
        worker(file, layout="another")
    with first.at_once() as mine:
        assert mine


def test_a_worker_killed_at_any_line_of_its_turn_leaves_what_others_can_use() -> None:
    """See `crashes`, which forks: a process of its own, without the threads of this one."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.proxy.history.crashes"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[0]) > 100
