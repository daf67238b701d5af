"""`breakwater serve` as a process of its own, as a user would run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from proxy.errors import ConfigError

_LISTENING = re.compile(r"listening on (\S+?),? ")
_ADMIN = re.compile(r"admin on (\S+)")
_START_S = 60.0
_STOP_S = 15.0


class Sidecar:
    """A running proxy; its ports are free ones it chose itself.

    Args:
        config: configuration file.
        log: where its log goes.
        workers: processes sharing the port.

    Raises:
        ConfigError: it did not become ready; the text ends with its log.
    """

    def __init__(self, config: Path, log: Path, *, workers: int = 1) -> None:
        self._log = log
        self._workers = workers
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(config)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                [*command, "--workers", str(workers)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.address = self._wait_for(_LISTENING)
        self.admin = self._wait_for(_ADMIN)
        self._wait_until_ready()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def metrics(self) -> str:
        """One scrape of the metrics."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def stop(self) -> int:
        """Finish what is in flight and stop; returns the exit status."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _wait_for(self, pattern: re.Pattern[str]) -> str:
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self._process.poll() is None:
            if found := pattern.search(self._log.read_text(errors="replace")):
                return found.group(1)
            time.sleep(0.05)
        raise self._failure()

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.admin}/ready", timeout=5) as answer:
                    if json.load(answer)["workers_ready"] == self._workers:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        raise self._failure()

    def _failure(self) -> ConfigError:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        return ConfigError(f"breakwater serve did not become ready; its log ends:\n{tail}")
