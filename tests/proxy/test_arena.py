from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.arena import ALIGNMENT, FOLDER, Arena, Lease, sweep

PAGE = mmap.PAGESIZE


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(4 * PAGE)
    yield arena
    arena.unlink()


def test_what_is_written_is_there_for_whoever_maps_it(arena: Arena) -> None:
    lease = arena.lend(5)
    assert lease is not None
    arena.write(lease.offset, memoryview(b"12345"))
    path = FOLDER / arena.key.lstrip("/")
    assert path.read_bytes()[lease.offset : lease.offset + 5] == b"12345"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_name_that_is_taken_away_leaves_the_memory(arena: Arena) -> None:
    with (FOLDER / arena.key.lstrip("/")).open("rb") as mapped:
        arena.unlink()
        arena.unlink()
        arena.write(0, b"after")
        assert mapped.read(5) == b"after"


def test_it_is_lent_once(arena: Arena) -> None:
    assert arena.lend(3 * PAGE) == Lease(0, 3 * PAGE)
    assert arena.lend(2 * PAGE) is None
    assert arena.lend(PAGE) == Lease(3 * PAGE, PAGE)
    assert arena.lend(1) is None
    assert arena.leased_bytes == arena.byte_size


def test_more_than_there_is(arena: Arena) -> None:
    assert arena.lend(4 * PAGE + 1) is None


def test_held_memory_comes_back_in_time() -> None:
    clock = Clock()
    arena = Arena(PAGE, clock=clock)
    arena.unlink()
    lease = arena.lend(PAGE)
    assert lease is not None
    arena.hold(lease, 300)
    clock.now_s += 299.9
    assert arena.lend(1) is None
    assert arena.leased_bytes == PAGE
    clock.now_s += 0.1
    assert arena.leased_bytes == 0
    assert arena.lend(1) is not None


@given(st.lists(st.tuples(st.integers(1, 3 * PAGE), st.integers(0, 5)), max_size=60))
def test_leases_never_overlap_and_all_comes_back(steps: list[tuple[int, int]]) -> None:
    arena = Arena(8 * PAGE)
    arena.unlink()
    out: list[Lease] = []
    for size, drop in steps:
        if (lease := arena.lend(size)) is not None:
            assert lease.byte_size >= size
            assert lease.offset % ALIGNMENT == 0
            assert sum(lease) <= arena.byte_size
            assert all(sum(lease) <= o.offset or sum(o) <= lease.offset for o in out)
            out.append(lease)
        if drop < len(out):
            arena.release(out.pop(drop))
        assert arena.leased_bytes == sum(lease.byte_size for lease in out)
    for lease in out:
        arena.release(lease)
    assert arena.lend(arena.byte_size) == Lease(0, arena.byte_size)


def test_memory_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"too large|No space"):
        Arena(1 << 62, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from proxy.arena import Arena; "
        "Arena(4096, folder=Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (tmp_path / "another").write_bytes(b"")
    living = Arena(PAGE, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert sweep(tmp_path) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"another", living.key.lstrip("/")}
    living.unlink()


def test_a_fifo_in_the_folder_does_not_stop_the_sweep(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "breakwater-1-x")
    sweep(tmp_path)
