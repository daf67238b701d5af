"""A real Triton server from the PyPI wheel nvidia-pytriton, for the demo, the tests and benchmarks.

x86-64 Linux, no GPU and no container needed; models are Python-backend folders. Knows nothing
about Breakwater's own configuration.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

READY_POLL_S = 0.05
START_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 1
_STUB = "triton_python_backend_stub"


class TritonUnavailable(RuntimeError):
    """A real Triton cannot run here, or did not start; the text says what to do about it."""


def wheel_folder() -> Path:
    """Return the folder inside nvidia-pytriton that holds the server.

    Raises:
        TritonUnavailable: the wheel is not installed, or this platform has no build of it.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise TritonUnavailable(
            f"the embedded Triton runs on x86-64 Linux only, not {sys.platform} "
            f"{platform.machine()}; point Breakwater at a Triton of your own instead"
        )
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise TritonUnavailable(
            "nvidia-pytriton is not installed: pip install breakwater[demo] (it carries Triton)"
        )
    return Path(spec.submodule_search_locations[0]) / "tritonserver"


def backend_folder() -> Path:
    """Return a folder with the Python backend and this Python's stub, made on the first call.

    The wheel keeps the two apart and Triton wants them side by side. Files are linked, not copied.

    Raises:
        TritonUnavailable: the wheel has no stub for this version of Python.
    """
    wheel = wheel_folder()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / _STUB
    if not stub.exists():
        raise TritonUnavailable(f"nvidia-pytriton has no Triton stub for Python {version}")
    folder = Path(sys.prefix) / "triton-backends"
    if not (folder / "python" / _STUB).exists():
        # Built aside and moved in one step: two processes starting at once both find it whole.
        aside = Path(tempfile.mkdtemp(dir=sys.prefix, prefix=".triton-backends-"))
        (aside / "python").mkdir()
        for file in [*(wheel / "backends" / "python").iterdir(), stub]:
            (aside / "python" / file.name).symlink_to(file)
        try:
            aside.rename(folder)
        except OSError:
            shutil.rmtree(aside)
    return folder


def _reserve_port() -> socket.socket:
    """Return a bound, not listening socket that keeps a free port ours.

    Triton cannot report the port it was given when asked for port 0, so a port must be chosen for
    it. With SO_REUSEPORT on both sides Triton may bind the port while the reservation stands, and
    nobody else may: no race at start, and none between `kill` and `restart`.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


class EmbeddedTriton:
    """One tritonserver process on 127.0.0.1; a context manager that starts and stops it.

    Args:
        model_repository: folder of models. Their config.pbtxt must be complete: auto-completion is
            off, since it starts every Python model twice.
        log: file for the server's output. Default: a temporary file, deleted by `stop`.
        extra_args: more tritonserver options.
    """

    def __init__(
        self, model_repository: Path, *, log: Path | None = None, extra_args: Sequence[str] = ()
    ) -> None:
        self._repository = model_repository
        self._extra_args = tuple(extra_args)
        self._own_log = log is None
        self._log = log or Path(tempfile.mkstemp(prefix="tritonserver-", suffix=".log")[1])
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = (_reserve_port(), _reserve_port())
        self.grpc_port: int = self._ports[0].getsockname()[1]
        self.http_port: int = self._ports[1].getsockname()[1]

    @property
    def grpc_address(self) -> str:
        """Where gRPC clients connect, "127.0.0.1:port"; the same across restarts."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def pid(self) -> int:
        """Process id of the server.

        Raises:
            TritonUnavailable: it is not running.
        """
        if self._process is None:
            raise TritonUnavailable("Triton is not running")
        return self._process.pid

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Start the server and return when every model is ready.

        Raises:
            TritonUnavailable: no wheel here, or the server ended or was not ready within
                `timeout_s` seconds; the text ends with the tail of its log.
        """
        if self._process is not None:
            raise TritonUnavailable("Triton is already running")
        command = self._command()
        with self._log.open("ab") as log:
            # Its own session: the stubs are its children and are signalled as one group.
            self._process = subprocess.Popen(  # noqa: S603 (our own fixed command)
                command,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_ready(timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ask the server to end, kill it if it does not, and give its ports back."""
        self._end(signal.SIGTERM)
        for held in self._ports:
            held.close()
        if self._own_log:
            self._log.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the server at once, as a crash would; `restart` brings it back on the same ports."""
        self._end(signal.SIGKILL)

    @property
    def has_crashed(self) -> bool:
        """Whether it was started, not stopped, and yet has ended."""
        return self._process is not None and self._process.poll() is not None

    def restart(self) -> None:
        """Stop the server if it runs and start it again on the same ports."""
        self._end(signal.SIGTERM)
        self.start()

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        return [
            str(wheel_folder() / "bin" / "tritonserver"),
            f"--model-repository={self._repository}",
            f"--backend-directory={backend_folder()}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc_port}",
            "--reuse-grpc-port=1",
            "--http-address=127.0.0.1",
            f"--http-port={self.http_port}",
            "--reuse-http-port=1",
            "--http-thread-count=1",
            "--allow-metrics=false",
            "--log-info=false",
            "--pinned-memory-pool-byte-size=0",
            "--disable-auto-complete-config",
            # Own names for shared memory, so that what a killed server leaves can be removed.
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            *self._extra_args,
        ]

    @property
    def _shm_prefix(self) -> str:
        return f"breakwater_{os.getpid()}_{self.grpc_port}_"

    def _wait_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None:
                raise TritonUnavailable(f"Triton ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TritonUnavailable(
                    f"Triton was not ready after {timeout_s:.0f} s:\n{self.log_tail()}"
                )
            time.sleep(READY_POLL_S)

    def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.http_port}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(EXIT_TIMEOUT_S + 3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Stubs notice a dead parent only after a while; the group is still ours to end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for left in Path("/dev/shm").glob(f"{self._shm_prefix}*"):  # noqa: S108
            left.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Return the environment tritonserver needs to find its libraries and this Python.

    The stub embeds libpython and looks for packages through the `python3` that is first on PATH;
    it ignores PYTHONPATH.
    """
    wheel = wheel_folder()
    libraries = [sysconfig.get_config_var("LIBDIR"), wheel.parents[1] / "nvidia_pytriton.libs"]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(str(part) for part in libraries if part),
        "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", "")]),
        # One image at a time through tiny models: thread pools would only fight over the cores.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
