"""Audit lines: what they say, what they never say, and that they never hold up a request."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import resource
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from proxy.audit import MAX_SAMPLES, MAX_TEXT, AuditLog, line
from proxy.flow import Action, Flow, SampleVerdict, Verdict

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
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


def test_a_line_tells_what_happened() -> None:
    assert json.loads(json.dumps(line(NOON, flow(client_id="c", bytes_in=7)))) == {
        "time": "2026-01-02T12:00:00.123Z",
        "request_id": "r1",
        "client_id": "c",
        "principal": "10.0.0.1",
        "model": "cnn",
        "version": "1",
        "streamed": False,
        "verdict": "suspicious",
        "failure": "",
        "chain": 0,
        "quarantined": False,
        "action": "purify",
        "outcome": "ok",
        "samples_total": 2,
        "samples": [
            {
                "index": 1,
                "verdict": "suspicious",
                "score": 3.14159,
                "threshold": 2.0,
                "p_values": {"grid": 0.001},
                "reason": "grid",
                "alarm": False,
            }
        ],
        "stage_ms": {"score": 1.235, "total": 10.0},
        "bytes_in": 7,
        "bytes_out": 0,
    }


def test_times_are_utc_whatever_the_zone() -> None:
    cet = NOON.astimezone(timezone(timedelta(hours=1)))
    assert line(cet, flow())["time"] == "2026-01-02T12:00:00.123Z"


def test_numbers_json_does_not_have_are_null() -> None:
    failed = SampleVerdict(Verdict.FAILED, math.nan, math.inf, {"grid": math.nan}, "error")
    sample = json.loads(json.dumps(line(NOON, flow(samples=(failed,))), allow_nan=False))
    assert sample["samples"][0]["score"] is None
    assert sample["samples"][0]["threshold"] is None
    assert sample["samples"][0]["p_values"] == {"grid": None}


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


def test_lines_are_bounded_whatever_the_batch() -> None:
    entry = line(NOON, flow(samples=(CLEAN,) + (SUSPECT,) * 1000))
    assert entry["samples_total"] == 1001
    assert len(entry["samples"]) == MAX_SAMPLES
    assert entry["samples"][0]["index"] == 1


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
    assert len(text.splitlines()) == 2000 - sum(dropped)


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
    assert len([r for r in caplog.records if "cannot be written" in r.message]) == 1


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


def test_standard_output_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    log = AuditLog(None, never)
    log.record(flow(request_id="seen"))
    log.close()
    assert json.loads(capfd.readouterr().out)["request_id"] == "seen"


def test_a_file_that_cannot_be_opened_is_an_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        AuditLog(tmp_path / "missing" / "a", never)
