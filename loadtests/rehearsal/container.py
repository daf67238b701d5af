"""One container's process, with the kubelet's probes and restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loadtests.harness import CHECKOUT
from loadtests.rehearsal.network import Place
from tuning import triton

_TICK_S = 0.1
_NOTICED_S = 1.0
"""The kubelet looks for ended containers once a second (PLEG)."""
_BACKOFF_S = 10.0
_BREAKWATER = (sys.executable, "-m", "proxy")


class Container:
    """Started, probed and restarted as the manifest says; `ready` is what its readiness is."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        place: Place,
        translate: Callable[[str], str],
        log: Path,
    ) -> None:
        self.name: str = spec["name"]
        self.started = self.ready = False
        self.restarts = 0
        self.log = log
        self._spec = spec
        self._place = place
        self._translate = translate
        self._terminating = threading.Event()
        self._over = threading.Event()
        self._failures: dict[str, int] = {}
        self._due_s: dict[str, float] = {}
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL to its first process, and with it to all others: that is a container's end."""
        everybody = [self.pid, *_descendants(self.pid)]
        for pid in everybody:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def children(self) -> list[int]:
        """Its first process's children."""
        return _children(self.pid)

    def pre_stop(self) -> None:
        """Run the preStop hook, if there is one. From here on it is not started again."""
        self._terminating.set()
        hook = self._spec.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            time.sleep(hook["sleep"]["seconds"])
        elif "exec" in hook:
            self._exec(hook["exec"]["command"], None)

    def terminate(self, end_s: float) -> bool:
        """SIGTERM, and SIGKILL when the grace is over; whether the latter was needed."""
        self._terminating.set()
        self._process.terminate()
        try:
            self._process.wait(max(2.0, end_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.close()
            return True
        self.close()
        return False

    def close(self) -> None:
        """End what is left of it at once."""
        self._terminating.set()
        self._over.set()
        self.ready = False
        if self._process.poll() is None:
            self.kill()
        self._sweep()
        self._process.wait()
        for left in Path("/dev/shm").glob(f"{self._shared_memory}*"):
            left.unlink(missing_ok=True)

    # -- the process -----------------------------------------------------------------------------

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [*self._spec.get("command", []), *self._spec.get("args", [])]
        given = {e["name"]: self._translate(e["value"]) for e in self._spec.get("env", [])}
        environment = {**os.environ, **given}
        if command[0] == "tritonserver":
            environment |= triton.environment()
        now = time.monotonic()
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            delay_s = float(self._spec.get(kind, {}).get("initialDelaySeconds", 0))
            self._due_s[kind] = now + delay_s
            self._failures[kind] = 0
        self.started = "startupProbe" not in self._spec
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [*self._place.prefix, *self._here(command)],
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _here(self, command: list[str]) -> list[str]:
        """A command of the manifest as this machine runs it."""
        program, *arguments = (self._translate(part) for part in command)
        if program == "breakwater":
            shifted = arguments[0] == "drain" and self._place.shift
            admin = ("--admin", f"127.0.0.1:{self._place.port(9090)}") if shifted else ()
            return [*_BREAKWATER, *arguments, *admin]
        if program != "tritonserver":
            return [program, *arguments]
        return [
            str(triton.wheel_folder() / "bin" / "tritonserver"),
            *arguments,
            f"--backend-directory={triton.backend_folder()}",
            "--http-thread-count=1",
            "--log-info=false",
            "--disable-auto-complete-config",
            "--pinned-memory-pool-byte-size=0",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory}",
        ]

    @property
    def _shared_memory(self) -> str:
        """Prefix of the names under which Triton shares memory with its Python backend."""
        return f"rehearsal_{os.getpid()}_{self._place.host}_{self._place.shift}_"

    # -- the kubelet -----------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._over.wait(_TICK_S):
            if self._process.poll() is not None:
                self.ready = False
                if self._terminating.is_set():
                    return
                wait_s = _NOTICED_S + (_BACKOFF_S * self.restarts if self.restarts else 0.0)
                if self._over.wait(wait_s) or self._terminating.is_set():
                    return
                self.restarts += 1
                self._sweep()
                self._process = self._spawn()
            elif not self.started:
                self._probe("startupProbe")
            else:
                self._probe("readinessProbe")
                if not self._terminating.is_set():
                    self._probe("livenessProbe")

    def _sweep(self) -> None:
        """End what its first process left behind in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _probe(self, kind: str) -> None:
        probe = self._spec.get(kind)
        if probe is None:
            self.ready |= kind == "readinessProbe"
            return
        if time.monotonic() < self._due_s[kind]:
            return
        self._due_s[kind] = time.monotonic() + float(probe.get("periodSeconds", 10))
        good = self._check(probe)
        self._failures[kind] = 0 if good else self._failures[kind] + 1
        failed = self._failures[kind] >= int(probe.get("failureThreshold", 3))
        if kind == "startupProbe":
            self.started = good
        elif kind == "readinessProbe" and (good or failed):
            self.ready = good
        if failed and kind != "readinessProbe" and not self._terminating.is_set():
            self._process.terminate()

    def _check(self, probe: Mapping[str, Any]) -> bool:
        limit_s = float(probe.get("timeoutSeconds", 1))
        if "grpc" in probe:
            return self._ask_health(probe["grpc"], limit_s)
        if "exec" in probe:
            return self._exec(probe["exec"]["command"], limit_s)
        where = probe["httpGet"]
        url = f"http://{self._place.host}:{self._place.port(where['port'])}{where['path']}"
        try:
            with urllib.request.urlopen(url, timeout=limit_s) as answer:
                return bool(200 <= answer.status < 400)
        except (urllib.error.URLError, OSError):
            return False

    def _ask_health(self, where: Mapping[str, Any], limit_s: float) -> bool:
        target = f"{self._place.host}:{self._place.port(where['port'])}"
        request = health_pb2.HealthCheckRequest(service=where.get("service", ""))
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(target, options=options) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=limit_s)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _exec(self, command: list[str], limit_s: float | None) -> bool:
        with self.log.open("ab") as output:
            try:
                ran = subprocess.run(
                    [*self._place.prefix, *self._here(command)],
                    cwd=CHECKOUT,
                    timeout=limit_s,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            except subprocess.TimeoutExpired:
                return False
        return ran.returncode == 0


def _children(pid: int) -> list[int]:
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in told.split()]


def _descendants(pid: int) -> list[int]:
    return [each for child in _children(pid) for each in (child, *_descendants(child))]
