"""The audit log: one JSON line per suspicious, failed or blocked request, never pixels.

Lines are made and written on a thread of their own: a slow disk costs lines, not requests. They
form a chain (`proxy.audit_chain`), in which lines that were lost are told as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.audit_chain import Chain
from proxy.audit_line import line, said
from proxy.flow import Flow

log = logging.getLogger(__name__)

CAPACITY = 4096
"""Most lines waiting to be written, about 2 MB; more are dropped and counted."""
CLOSE_S = 5.0
HEAD_S = 60.0
"""Between looks at whether the chain has grown, seconds; see `AuditLog`."""

_STDOUT = 1


class AuditLog:
    """Appends to a file, or to standard output.

    The end of its chain goes to the process log once a minute where it has grown, as
    `audit head RUN:SEQ:SEAL`: kept elsewhere, it shows whether the file's end was cut off.

    Args:
        path: file appended to; it may be moved away at any time (rotation) and is made anew.
            None: standard output.
        on_drop: told how many lines were lost, on whichever thread noticed.
        capacity: most lines waiting to be written.
        key: of the lines' seals. None: they are plain digests.
        worker: begins the name of the run; of letters, digits, `.` and `-`.
        head_s: seconds between looks at whether the chain has grown.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path | None,
        on_drop: Callable[[int], None],
        *,
        capacity: int = CAPACITY,
        key: bytes | None = None,
        worker: str = "",
        head_s: float = HEAD_S,
    ) -> None:
        self._path = path
        self._on_drop = on_drop
        self._head_s = head_s
        self._told = 0
        self._lost = 0
        self._counting = threading.Lock()
        run = secrets.token_hex(8)
        self._chain = Chain(f"{worker}.{run}" if worker else run, key)
        self._file = _STDOUT
        self._is_torn = False
        """Whether the last line in the file is only the beginning of one."""
        self._open()
        self._waiting: queue.Queue[tuple[datetime, Flow] | None] = queue.Queue(capacity)
        self._failing = False
        self._writer = threading.Thread(target=self._run, name="audit", daemon=True)
        self._writer.start()

    def record(self, flow: Flow) -> None:
        """Note a finished request; the flow must not change afterwards. Never blocks."""
        try:
            self._waiting.put_nowait((datetime.now(UTC), flow))
        except queue.Full:
            self._drop()

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

    def _drop(self) -> None:
        with self._counting:
            self._lost += 1
        self._on_drop(1)

    def _run(self) -> None:
        look_at = time.monotonic() + self._head_s
        while True:
            try:
                item = self._waiting.get(timeout=max(0.0, look_at - time.monotonic()))
            except queue.Empty:
                self._tell()
                look_at = time.monotonic() + self._head_s
                continue
            if item is None:
                break
            self._try(*item)
            if time.monotonic() >= look_at:
                self._tell()
                look_at = time.monotonic() + self._head_s
        self._tell()

    def _try(self, when: datetime, flow: Flow) -> None:
        try:
            self._append(line(when, flow))
            self._failing = False
        except OSError as error:
            self._drop()
            if not self._failing:  # once per outage, not once per line
                log.error("audit log cannot be written: %s", error)
            self._failing = True
        except Exception:  # the edge of the thread: one odd line must not end the log
            self._drop()
            log.exception("audit line could not be made")

    def _tell(self) -> None:
        """Have no loss go unsaid for want of another line, and say how far the chain goes."""
        if self._lost:
            with contextlib.suppress(OSError):
                self._append({"time": said(datetime.now(UTC)), "event": "lost"})
        chain = self._chain
        if chain.seq != self._told:
            log.info("audit head %s:%d:%s", chain.run, chain.seq, chain.seal)
            self._told = chain.seq

    def _append(self, entry: dict[str, Any]) -> None:
        """Write a line; raises OSError where it is not, or not whole, in the file."""
        self._follow_rotation()
        with self._counting:
            lost = self._lost
        # One write per line on an O_APPEND file: the lines of several workers in one file do not
        # mix.
        self._write(self._chain.link(entry, lost))
        self._chain.written()
        with self._counting:
            self._lost -= lost

    def _write(self, text: bytes) -> None:
        """Append a line; what a full disk left of the one before stays a line of its own."""
        data = b"\n" * self._is_torn + text + b"\n"
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            self._is_torn = self._is_torn or written > 0
            if written < len(data) - 1:
                raise
            return  # only the line's end is missing: a line all the same, and not to be told twice
        self._is_torn = False

    def _follow_rotation(self) -> None:
        if self._path is None:
            return
        try:
            if os.path.samestat(self._path.stat(), os.fstat(self._file)):
                return
        except FileNotFoundError:
            pass
        self._open()

    def _open(self) -> None:
        """Append to what is at the path now, which a crash may have left with half a line."""
        if self._path is None:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fresh, before = os.open(self._path, flags, 0o640), self._file
        self._file, self._is_torn = fresh, _is_torn(self._path)
        if before != _STDOUT:
            os.close(before)


def _is_torn(path: Path) -> bool:
    """Whether a file ends within a line."""
    if not path.is_file():  # a pipe has no end to look at
        return False
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # may be written and not read: then half a line is told by whoever verifies
        return False
