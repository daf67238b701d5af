"""What every benchmark needs: child processes and their cost, the machine, rows, table and JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import operator
import os
import platform
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tuning.page.rows import Row as Row
from tuning.processes import cpu_s as cpu_s
from tuning.processes import resident_bytes as resident_bytes

CHECKOUT = Path(__file__).resolve().parents[1]
READY_TIMEOUT_S = 60.0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether something listens on 127.0.0.1:port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Child:
    """A process we started, with its log, its cost, and a bounded end.

    Args:
        name: for messages.
        command: what to run, from the checkout's root.
        log: file for its output.
        is_ready: polled until true.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        is_ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        stop_by: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self._stop_by = stop_by
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end, and end its whole process group if it does not."""
        self._process.send_signal(self._stop_by)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _first(path: str, prefix: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(prefix):
            return line.partition(":")[2].strip()
    return "unknown"


def machine() -> str:
    """One line about this machine: processor, cores, memory, kernel, Python."""
    memory = int(_first("/proc/meminfo", "MemTotal").split()[0]) / 1024**2
    return (
        f"{_first('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """The checkout's commit, with a + when tracked files differ from it."""
    told = ["git", "-C", str(CHECKOUT)]
    try:
        head = subprocess.check_output([*told, "rev-parse", "--short=12", "HEAD"], text=True)
        changed = subprocess.check_output([*told, "status", "--porcelain", "-uno"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if changed else "")


@dataclass
class Report:
    """The rows of one run; prints them as tables and writes them as JSON."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def add(self, **row: str | int | float | bool | None) -> None:
        """Append one flat row."""
        self.rows.append(row)

    def figure(self, figure: str, value: float, to_reach: str, **where: str | int | float) -> None:
        """Append one figure with its goal, such as "<= 4.5"."""
        relation, bound = to_reach.split()
        met = {"<=": operator.le, ">=": operator.ge}[relation](value, float(bound))
        self.add(figure=figure, **where, value=round(value, 3), to_reach=to_reach, met=met)

    @property
    def missed(self) -> list[Row]:
        """Figures whose goal was not met."""
        return [row for row in self.rows if row.get("met") is False]

    def print(self, console: Console) -> None:
        """Print one table per shape of row."""
        shapes: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows:
            shapes.setdefault(tuple(row), []).append(row)
        for shape, rows in shapes.items():
            table = Table(title=self.title)
            for name in shape:
                numeric = isinstance(rows[0][name], (int, float))
                table.add_column(name, justify="right" if numeric else "left")
            for row in rows:
                table.add_row(*(_cell(row[name]) for name in shape))
            console.print(table)

    def finish(self, path: Path | None) -> int:
        """Print, write, and return the exit status: 1 when a goal was missed."""
        self.print(Console(width=160) if not sys.stdout.isatty() else Console())
        if path is not None:
            self.write(path)
        return 1 if self.missed else 0

    def write(self, path: Path) -> None:
        """Write the rows there are, with what is needed to make them again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**about(), "rows": self.rows}, indent=1) + "\n")


def _cell(value: str | float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "-" if value is None else str(value)


def about() -> dict[str, str]:
    """What a result needs to be made again."""
    return {"commit": commit(), "machine": machine(), "command": command()}


def command() -> str:
    """This run's command line as a user would type it."""
    path = Path(sys.argv[0])
    module = path.parent.name if path.stem == "__main__" else path.stem
    return shlex.join(["python", "-m", f"loadtests.{module}", *sys.argv[1:]])


def options(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the two options every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    return parser


def warn_if_busy() -> None:
    """Say so on standard error when other programs are using this machine."""
    if os.getloadavg()[0] > 0.5:
        print("the machine is busy: CPU figures will come out high and noisy", file=sys.stderr)


def median(values: Sequence[float]) -> float:
    """The middle value: one disturbed round does not move it."""
    return statistics.median(values)
