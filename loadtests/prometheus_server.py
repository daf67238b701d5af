"""A real Prometheus on a free port of 127.0.0.1 that scrapes what it is told to."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.harness import free_port

_READY_S = 30.0
_STOP_S = 10.0


class PrometheusUnavailable(RuntimeError):
    """There is no prometheus on this machine."""


def binary() -> str:
    """Where prometheus is.

    Raises:
        PrometheusUnavailable: nowhere.
    """
    found = shutil.which("prometheus")
    if found is None:
        raise PrometheusUnavailable(
            "prometheus is not installed (Debian: apt install --no-install-recommends prometheus)"
        )
    return found


class PrometheusServer:
    """A server with a database of its own; a context manager.

    Args:
        folder: for its configuration, database and log.
        targets: labels of each `host:port` that is scraped.
        scrape_s: how often.
        rules: rule files to evaluate, as often.

    Raises:
        PrometheusUnavailable: it is not installed.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Mapping[str, str]],
        *,
        scrape_s: float = 0.5,
        rules: Sequence[Path] = (),
    ) -> None:
        self._folder = folder
        self._command = [binary()]
        self._process: subprocess.Popen[bytes] | None = None
        every = f"{round(scrape_s * 1000)}ms"
        timing = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
        found = [{"targets": [at], "labels": dict(labels)} for at, labels in targets.items()]
        document = {
            "global": timing,
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "breakwater", "static_configs": found}],
        }
        # What is JSON is YAML too.
        (folder / "prometheus.yml").write_text(json.dumps(document))
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> PrometheusServer:
        log = self._folder / "prometheus.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *self._command,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'tsdb'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + _READY_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise RuntimeError(f"prometheus did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False
