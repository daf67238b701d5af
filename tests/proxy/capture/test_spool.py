"""A folder that stays within its bounds, whoever fills it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from proxy.capture.spool import Spool, TooLargeError
from proxy.errors import ConfigError

ALICE, BOB = "a" * 16, "b" * 16


def spool(folder: Path, **changed: float) -> Spool:
    settings = {"max_bytes": 1000, "keep_s": 3600.0, "share": 0.5, "most_files": 100, **changed}
    return Spool(folder, **settings)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".capture")


def of(tag: str, folder: Path) -> list[str]:
    return [name for name in names(folder) if f"-{tag}-" in name]


def test_files_and_folder_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "spool"
    before = os.umask(0)
    try:
        spool(folder).put(ALICE, b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        spool(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"capture\.folder"):
        spool(tmp_path / "file")


def test_files_of_a_caller_sort_as_they_came(tmp_path: Path) -> None:
    kept = spool(tmp_path / "s")
    for number in range(50):  # several of them within a millisecond
        kept.put(ALICE, bytes([number]))
    found = [(tmp_path / "s" / name).read_bytes() for name in names(tmp_path / "s")]
    assert found == [bytes([number]) for number in range(50)]


def test_one_caller_cannot_push_out_what_others_left(tmp_path: Path) -> None:
    kept = spool(tmp_path / "s")
    for _ in range(4):
        kept.put(BOB, b"x" * 100)
    evidence = of(BOB, tmp_path / "s")
    for _ in range(100):
        kept.put(ALICE, b"y" * 100)
    assert of(BOB, tmp_path / "s") == evidence
    assert len(of(ALICE, tmp_path / "s")) == 5
    assert (kept.files, kept.bytes) == (9, 900)


def test_the_oldest_go_where_all_are_within_their_share(tmp_path: Path) -> None:
    kept = spool(tmp_path / "s", share=0.3)
    for tag in "abcdef":
        kept.put(tag * 16, b"x" * 250)
    assert [name.split("-")[1][0] for name in names(tmp_path / "s")] == ["c", "d", "e", "f"]
    assert sum(path.stat().st_size for path in (tmp_path / "s").glob("*.capture")) <= 1000


def test_files_are_bounded_in_number(tmp_path: Path) -> None:
    kept = spool(tmp_path / "s", most_files=10)
    for index in range(40):
        kept.put((ALICE, BOB)[index % 2], b"")
    assert len(names(tmp_path / "s")) == 10


def test_what_is_more_than_a_share_is_refused(tmp_path: Path) -> None:
    kept = spool(tmp_path / "s")
    kept.put(BOB, b"x")
    with pytest.raises(TooLargeError):
        kept.put(ALICE, b"x" * 501)
    assert len(names(tmp_path / "s")) == 1


def test_age_ends_files_of_earlier_runs_too_and_foreign_ones_stay(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    spool(folder).put(ALICE, b"x")
    (fresh,) = names(folder)
    (folder / f"0000000000001{fresh[13:]}").write_bytes(b"old")
    (folder / f"9999999999999{fresh[13:]}").write_bytes(b"of a clock that was wrong")
    (folder / "notes.txt").write_text("mine")
    half = folder / f".0000000000001{fresh[13:]}"
    half.write_bytes(b"begun")
    os.utime(half, (1, 1))
    target = tmp_path / "target"
    target.write_text("of somebody else")
    link = folder / f"0000000000002{fresh[13:]}"
    link.symlink_to(target)
    kept = spool(folder)
    kept.sweep()
    assert names(folder) == sorted([fresh, link.name])
    assert (folder / "notes.txt").exists()
    assert not half.exists()
    assert target.exists()
    assert kept.files == 1


def test_several_processes_share_one_bound(tmp_path: Path) -> None:
    spools = [spool(tmp_path / "s", share=1.0) for _ in range(4)]

    def fill(kept: Spool, tag: str) -> None:
        for _ in range(30):
            kept.put(tag, b"x" * 100)

    threads = [
        threading.Thread(target=fill, args=(kept, f"{index}" * 16))
        for index, kept in enumerate(spools)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(tmp_path / "s")) == 10


def meet_a_full_disk(folder: Path) -> None:
    """In a process of its own, as the limit is the process's."""
    kept = spool(folder, max_bytes=100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    with pytest.raises(OSError, match="large"):
        kept.put(ALICE, b"x" * 5000)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    kept.put(ALICE, b"x" * 5000)
    assert len(names(folder)) == 1


def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(
        target=meet_a_full_disk, args=(tmp_path / "s",)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
