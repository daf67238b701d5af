"""Writing audit lines: that they never hold up a request, and form a chain whatever happens."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import queue
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.audit import AuditLog
from proxy.audit_chain import FIRST, Link, read
from proxy.audit_line import MAX_TEXT
from proxy.flow import Action, Flow, SampleVerdict, Verdict

SUSPECT = SampleVerdict(
    Verdict.SUSPICIOUS, score=3.14159265, threshold=2.0, p_values={"grid": 0.001}, reason="grid"
)
CLEAN = SampleVerdict(Verdict.PASS, score=1.0, threshold=2.0, p_values={"grid": 0.5})


def flow(**fields: Any) -> Flow:
    defaults: dict[str, Any] = {
        "request_id": "r1",
        "arrival_s": 0.0,
        "deadline_s": None,
        "principal": "10.0.0.1",
        "model": "cnn",
        "version": "1",
        "samples": (CLEAN, SUSPECT),
        "action": Action.PURIFY,
        "outcome": "ok",
        "stage_s": {"score": 0.0012345678, "total": 0.01},
    }
    return Flow(**(defaults | fields))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def never(_: int) -> None:
    pytest.fail("a line was dropped")


def test_what_clients_choose_is_cut_and_escaped(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a", never)
    nasty = '"}\n{"forged": 1}\u2028\x1b[31m\ud800'
    log.record(flow(client_id=nasty, model="m" * 10_000, version=nasty, principal=nasty))
    log.close()
    text = (tmp_path / "a").read_bytes()
    assert text.count(b"\n") == 1
    assert text.isascii()
    assert b"\x1b" not in text
    (entry,) = lines(tmp_path / "a")
    assert entry["client_id"] == nasty
    assert entry["model"] == "m" * MAX_TEXT


def test_appends_and_flushes_on_close(tmp_path: Path) -> None:
    for round_ in range(2):
        log = AuditLog(tmp_path / "a", never)
        for i in range(50):
            log.record(flow(request_id=f"{round_}-{i}"))
        log.close()
    expected = [f"{r}-{i}" for r in range(2) for i in range(50)]
    assert [entry["request_id"] for entry in lines(tmp_path / "a")] == expected
    assert (tmp_path / "a").stat().st_mode & 0o007 == 0


def test_follows_rotation(tmp_path: Path) -> None:
    path, moved = tmp_path / "a", tmp_path / "a.1"
    log = AuditLog(path, never)
    log.record(flow(request_id="before"))
    log.close()
    log = AuditLog(path, never)
    path.rename(moved)
    log.record(flow(request_id="after"))
    log.close()
    assert [entry["request_id"] for entry in lines(moved)] == ["before"]
    assert [entry["request_id"] for entry in lines(path)] == ["after"]


def test_a_slow_reader_costs_lines_not_requests(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    dropped: list[int] = []
    log = AuditLog(fifo, dropped.append, capacity=4)
    for i in range(2000):  # the pipe holds 64 KiB, the queue four lines
        log.record(flow(request_id=str(i)))
    assert sum(dropped) > 1000
    os.set_blocking(reader, True)
    text = bytearray()

    def read_all() -> None:
        while data := os.read(reader, 65536):
            text.extend(data)

    thread = threading.Thread(target=read_all)
    thread.start()
    log.close()
    thread.join()
    os.close(reader)
    written = [json.loads(each) for each in text.splitlines()]
    assert sum("request_id" in each for each in written) == 2000 - sum(dropped)
    assert sum(each.get("lost", 0) for each in written) == sum(dropped)
    assert [each["seq"] for each in written] == list(range(1, len(written) + 1))


def test_a_stuck_disk_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    dropped: list[int] = []
    log = AuditLog(fifo, dropped.append, capacity=4)
    filler = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(filler, b"x" * 4096)
    for _ in range(10):
        log.record(flow())
    before = sum(dropped)
    log.close(timeout_s=0.01)
    assert sum(dropped) > before
    os.close(filler)
    os.close(reader)  # the thread's write fails now, and it ends its wait


def test_write_errors_are_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    dropped: list[int] = []
    log = AuditLog(folder / "a", dropped.append)
    (folder / "a").rename(tmp_path / "a.1")
    folder.rmdir()
    log.record(flow())
    log.record(flow())
    log.close()
    assert sum(dropped) == 2
    said = [
        r for r in caplog.records if "cannot be written" in r.message and "No such" in r.message
    ]
    assert len(said) == 1


def fill_and_free(path: Path) -> None:
    """In a process of its own, as the limit is the process's: two lines meet a full disk."""
    dropped = threading.Semaphore(0)
    log = AuditLog(path, lambda lines: dropped.release())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    for _ in range(2):
        log.record(flow())
        assert dropped.acquire(timeout=10)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.record(flow())
    log.close()


def test_what_a_full_disk_cut_off_spoils_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    child = multiprocessing.get_context("spawn").Process(target=fill_and_free, args=(path,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    cut, whole = path.read_text().splitlines()
    assert len(cut) == 10
    assert json.loads(whole)["verdict"] == "suspicious"
    assert json.loads(whole)["lost"] == 2


class Heads(logging.Handler):
    """Collects what is said of the chain's end."""

    def __init__(self) -> None:
        super().__init__()
        self.said: queue.Queue[str] = queue.Queue()
        logger = logging.getLogger("proxy.audit")
        logger.addHandler(self)
        logger.setLevel("INFO")

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("audit head "):
            self.said.put(record.getMessage().removeprefix("audit head "))

    def until(self, seq: int) -> str:
        while True:
            head = self.said.get(timeout=10)
            if int(head.split(":")[1]) >= seq:
                return head


@pytest.fixture
def heads() -> Iterator[Heads]:
    found = Heads()
    yield found
    logging.getLogger("proxy.audit").removeHandler(found)


def links(path: Path) -> list[Link]:
    found = [read(text) for text in path.read_bytes().splitlines()]
    assert all(found)
    return [each for each in found if each is not None]


def test_lines_form_a_chain_over_files(tmp_path: Path, heads: Heads) -> None:
    path, moved = tmp_path / "a", tmp_path / "a.1"
    told: list[int] = []
    log = AuditLog(path, told.append, key=b"k" * 16, worker="worker-3", head_s=0.01)
    log.record(flow())
    log.record(flow())
    heads.until(2)
    path.rename(moved)
    log.record(flow())
    log.close()
    first, second, third = links(moved) + links(path)
    assert [first.seq, second.seq, third.seq] == [1, 2, 3]
    assert [first.prev, second.prev, third.prev] == [FIRST, first.seal, second.seal]
    assert all(each.holds(b"k" * 16) for each in (first, second, third))
    assert not first.holds(None)
    assert first.run.startswith("worker-3.")


def test_a_restart_begins_a_chain_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        log = AuditLog(tmp_path / "a", never)
        log.record(flow())
        log.close()
    before, after = links(tmp_path / "a")
    assert before.run != after.run
    assert (after.seq, after.prev) == (1, FIRST)


def test_half_a_line_of_a_crash_stays_one_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"time": "2026-01')
    log = AuditLog(tmp_path / "a", never)
    log.record(flow())
    log.close()
    half, whole = (tmp_path / "a").read_bytes().splitlines()
    assert half == b'{"time": "2026-01'
    assert read(whole) is not None


def test_the_end_of_the_chain_is_told(tmp_path: Path, heads: Heads) -> None:
    log = AuditLog(tmp_path / "a", never, head_s=0.001)
    log.record(flow())
    assert heads.until(1)
    log.close()
    (link,) = links(tmp_path / "a")
    log = AuditLog(tmp_path / "a", never)
    log.close()
    assert heads.said.empty()  # once, and not of a chain that has no line
    log = AuditLog(tmp_path / "a", never)
    log.record(flow())
    log.close()
    assert heads.until(1) == f"{links(tmp_path / 'a')[1].run}:1:{links(tmp_path / 'a')[1].seal}"
    assert link.seq == 1


def no_end_of_line(path: Path) -> None:
    """In a process of its own: of the first line all but its end fits on the disk."""
    probe = AuditLog(path.with_name("probe"), lambda _: None)
    probe.record(flow())
    probe.close()
    size = path.with_name("probe").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
    heads = Heads()
    log = AuditLog(path, lambda _: None, head_s=0.01)
    log.record(flow())
    heads.until(1)
    log.close()
    assert path.stat().st_size == size - 1
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log = AuditLog(path, lambda _: None)
    log.record(flow())
    log.close()


def test_a_line_that_only_lacks_its_end_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    child = multiprocessing.get_context("spawn").Process(target=no_end_of_line, args=(path,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert [(each.seq, each.lost) for each in links(path)] == [(1, 0), (1, 0)]


def test_standard_output_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    log = AuditLog(None, never)
    log.record(flow(request_id="seen"))
    log.close()
    assert json.loads(capfd.readouterr().out)["request_id"] == "seen"


def test_a_file_that_cannot_be_opened_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        AuditLog(tmp_path / "missing" / "a", never)
