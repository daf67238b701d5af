"""The audit log: one JSON line per suspicious, failed or blocked request, never pixels.

Lines are made and written on a thread of their own: a slow disk costs lines, not requests.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.flow import Flow, SampleVerdict, Verdict

log = logging.getLogger(__name__)

CAPACITY = 4096
"""Most lines waiting to be written, about 2 MB; more are dropped and counted."""
MAX_TEXT = 256
"""Characters kept of any text a client chose."""
MAX_SAMPLES = 64
"""Samples described per line; `samples_total` tells how many there were."""
CLOSE_S = 5.0

_STDOUT = 1


class AuditLog:
    """Appends to a file, or to standard output.

    Args:
        path: file appended to; it may be moved away at any time (rotation) and is made anew.
            None: standard output.
        on_drop: told how many lines were lost, on whichever thread noticed.
        capacity: most lines waiting to be written.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self, path: Path | None, on_drop: Callable[[int], None], *, capacity: int = CAPACITY
    ) -> None:
        self._path = path
        self._on_drop = on_drop
        self._file = _STDOUT if path is None else _open(path)
        self._waiting: queue.Queue[tuple[datetime, Flow] | None] = queue.Queue(capacity)
        self._failing = False
        self._is_torn = False
        """Whether the last line in the file is only the beginning of one."""
        self._writer = threading.Thread(target=self._run, name="audit", daemon=True)
        self._writer.start()

    def record(self, flow: Flow) -> None:
        """Note a finished request; the flow must not change afterwards. Never blocks."""
        try:
            self._waiting.put_nowait((datetime.now(UTC), flow))
        except queue.Full:
            self._on_drop(1)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write what is waiting and close the file. Nothing may be recorded afterwards.

        Args:
            timeout_s: how long a stuck disk or a full pipe may hold up the exit.
        """
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
        self._writer.join(timeout_s)
        if self._writer.is_alive():
            self._on_drop(self._waiting.qsize())
            log.error("audit log: gave up on %d lines", self._waiting.qsize())
        elif self._file != _STDOUT:
            os.close(self._file)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._follow_rotation()
                # One write per line on an O_APPEND file: the lines of several workers in one file
                # do not mix.
                self._write((json.dumps(line(*item)) + "\n").encode())
                self._failing = False
            except OSError as error:
                self._on_drop(1)
                if not self._failing:  # once per outage, not once per line
                    log.error("audit log cannot be written: %s", error)
                self._failing = True
            except Exception:  # the edge of the thread: one odd line must not end the log
                self._on_drop(1)
                log.exception("audit line could not be made")

    def _write(self, data: bytes) -> None:
        """Append a line; what a full disk left of the one before stays a line of its own."""
        if self._is_torn:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            self._is_torn = self._is_torn or written > 0
            raise
        self._is_torn = False

    def _follow_rotation(self) -> None:
        if self._path is None:
            return
        try:
            if os.path.samestat(self._path.stat(), os.fstat(self._file)):
                return
        except FileNotFoundError:
            pass
        fresh = _open(self._path)
        os.close(self._file)
        self._file = fresh
        self._is_torn = False


def line(time: datetime, flow: Flow) -> dict[str, Any]:
    """Return what is written about a request, ready for JSON.

    Args:
        time: when it finished, with its time zone.
        flow: the request.
    """
    notable = [
        (index, sample)
        for index, sample in enumerate(flow.samples)
        if sample.verdict is not Verdict.PASS or sample.alarm
    ]
    return {
        "time": time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": flow.request_id,
        "client_id": flow.client_id[:MAX_TEXT],
        "principal": flow.principal[:MAX_TEXT],
        "model": flow.model[:MAX_TEXT],
        "version": flow.version[:MAX_TEXT],
        "streamed": flow.streamed,
        "verdict": flow.verdict,
        "failure": flow.failure,
        "chain": flow.chain,
        "quarantined": flow.quarantined,
        "action": flow.action,
        "outcome": flow.outcome,
        "samples_total": len(flow.samples),
        "samples": [_sample(*item) for item in notable[:MAX_SAMPLES]],
        "stage_ms": {stage: round(s * 1000, 3) for stage, s in flow.stage_s.items()},
        "bytes_in": flow.bytes_in,
        "bytes_out": flow.bytes_out,
    }


def _sample(index: int, sample: SampleVerdict) -> dict[str, Any]:
    return {
        "index": index,
        "verdict": sample.verdict,
        "score": _number(sample.score),
        "threshold": _number(sample.threshold),
        "p_values": {name: _number(p) for name, p in sample.p_values.items()},
        "reason": sample.reason[:MAX_TEXT],
        "alarm": sample.alarm,
    }


def _number(value: float) -> float | None:
    """Six digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
