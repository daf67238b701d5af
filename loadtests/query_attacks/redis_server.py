"""A real redis-server on a free port of 127.0.0.1, to use, to kill and to freeze."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path

from loadtests.harness import free_port

_READY_S = 30.0
_READY = "Ready to accept connections"


class RedisUnavailable(RuntimeError):
    """There is no redis-server on this machine."""


def binary() -> str:
    """Where redis-server is.

    Raises:
        RedisUnavailable: nowhere.
    """
    found = shutil.which("redis-server")
    if found is None:
        raise RedisUnavailable("redis-server is not installed (Debian: apt install redis-server)")
    return found


class RedisServer:
    """A server without persistence; a context manager.

    Args:
        folder: for its log and files.
        settings: further lines of its configuration, by name; `tls_port=0` is another free port.
    """

    def __init__(self, folder: Path, **settings: str | int) -> None:
        self._folder = folder
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.tls_port = free_port() if "tls_port" in settings else 0

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it, empty; return when it accepts connections."""
        log = self._folder / f"redis-{self.port}.log"
        settings: dict[str, str | int] = {
            **{"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no"},
            **self.settings,
            **({"tls_port": self.tls_port} if self.tls_port else {}),
        }
        told = [part for name, value in settings.items() for part in (_option(name), str(value))]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [binary(), *told], cwd=self._folder, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _READY_S
        while _READY not in log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once; its connections are reset."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop it from running: connections stay and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it was never started"
        self._process.send_signal(number)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.kill()


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
