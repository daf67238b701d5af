"""`--workers N`: several processes on one port, shown and steered as one.

The parent carries no traffic. It reserves the port, starts and replaces workers, and answers the
admin port: metrics are the workers' sum, ready when one of them is, drain and reload reach all. It
makes the file in which they have their history in common, and looks at nothing in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from proxy.admin import Admin, Status
from proxy.config import Config
from proxy.console.routes import Console
from proxy.control import workers as policies
from proxy.control.hosting import ControlHost
from proxy.control.policy_file import PolicyFile
from proxy.drain import Mode
from proxy.drift.workers import DriftWorkers
from proxy.errors import ConfigError
from proxy.explorer import workers as explorers
from proxy.history import memory_file
from proxy.history.overview import merged
from proxy.identity.admin_tls import AdminTls
from proxy.metrics import SupervisorMetrics
from proxy.metrics_listener import listening
from proxy.records.sketch import KEY_BYTES
from proxy.records.workers import Workers
from proxy.runtime_folder import runtime_folder
from proxy.tasks import Tasks

log = logging.getLogger(__name__)

EXIT_CONFIG = 2
"""Exit code of a worker that refuses its configuration; before any worker ran, it ends us all."""
GRACE_S = 5.0  # past the times of a drain, before a worker is killed
ASK_TIMEOUT_S = 2.0  # a worker's loop is never busy for longer
LOOK_S = 3.0  # between looks at each worker
HUNG_AFTER = 3
"""So many looks in a row without an answer, from a worker that has started, and it is replaced."""
RETELL_S = 0.2  # between tries to reach a worker that is starting
RELOAD_TIMEOUT_S = 120.0  # a reload loads every model's networks, and asks Triton about each
STABLE_S = 60.0  # a worker that lived this long did not die of its start
LONGEST_BACKOFF_S = 30.0

_ORDERLY = (0, -signal.SIGTERM, -signal.SIGINT, 130)
"""Exit codes of a worker told to go; all but 0: it had not yet started to serve."""

RECORDS_KEY = "BREAKWATER_RECORDS_KEY"
"""Environment variable with the key that all workers hash scores with, in hexadecimal."""

_COMMAND = (sys.executable, "-m", "proxy.cli")


async def supervise(
    argv: Sequence[str],
    config: Config,
    workers: int,
    *,
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    announce: Callable[[str, str], None] | None = None,
    command: Sequence[str] = _COMMAND,
    backoff_s: float = 0.5,
    look_s: float = LOOK_S,
) -> int:
    """Run workers until SIGTERM, SIGINT or /drain; return the exit code.

    Args:
        argv: the arguments this process was started with (`serve ...`); the workers get them too.
        config: for the addresses and the times of a drain.
        workers: how many.
        path: the configuration file, for the control API; None when there is none.
        overrides: command-line settings that win over the file.
        announce: told the bound addresses, listen and admin, before the workers are up; they are
            logged in any case.
        command: the program the arguments are for.
        backoff_s: wait before the first replacement of a worker; doubles with each early death.
        look_s: between looks at each worker, whether it still answers.

    Returns:
        0; 1 when a worker had to be killed or failed to drain; 2 when the configuration was
        refused.

    Raises:
        ConfigError: an address cannot be bound.
    """
    with _reserved(config.listen) as listen, runtime_folder() as folder, _history_file() as file:
        line = [*command, *argv, "--listen", listen, "--worker-dir", str(folder)]
        line += ["--worker-history", str(file)]
        supervisor = Supervisor(
            line, config, workers, folder, backoff_s, files=[file], look_s=look_s
        )
        policy = None if path is None else PolicyFile(path, {**(overrides or {}), "listen": listen})
        control = ControlHost(supervisor, config, policy)
        console = Console(supervisor, control.control)
        tls = None if config.admin_tls is None else AdminTls(config.admin_tls)
        admin = Admin(
            supervisor, console, access=control.access, tls=None if tls is None else tls.context
        )
        try:
            address = await admin.start(config.admin)
        except OSError as error:
            raise ConfigError(f"admin address {config.admin}: {error.strerror}") from error
        log.info("listening on %s with %d workers, upstream %s", listen, workers, config.upstream)
        log.info("admin on %s", address)
        log.info("console on %s://%s/console/", "https" if tls else "http", address)
        if announce is not None:
            announce(listen, address)
        following = Tasks()
        if tls is not None:
            following.start(tls.rotation.run())
        try:
            await control.start()
            async with listening(supervisor, config.metrics):
                with _signals(supervisor):
                    return await supervisor.run()
        finally:
            await following.stop()
            await control.stop()
            await admin.stop()


def watch_parent(orphaned: Callable[[], None]) -> None:
    """In a worker: call back when the supervisor is gone, however it went.

    Standard input is a pipe whose other end only the supervisor holds; nothing is written to it.
    """
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def readable() -> None:
        if not os.read(stdin, 1):
            loop.remove_reader(stdin)
            orphaned()

    loop.add_reader(stdin, readable)


def worker_socket(folder: Path, index: int) -> Path:
    """Return where a worker's admin listener is to be."""
    return folder / f"worker-{index}.sock"


class Supervisor:
    """Keeps the workers running; the admin listener's target.

    Args:
        command: what starts a worker, but for `--worker-index`.
        config: for the times of a drain.
        workers: how many.
        folder: private folder for sockets and metrics.
        backoff_s: wait before the first replacement of a worker.
        files: descriptors that every worker gets.
        look_s: between looks at each worker.
    """

    def __init__(
        self,
        command: Sequence[str],
        config: Config,
        workers: int,
        folder: Path,
        backoff_s: float,
        *,
        files: Sequence[int] = (),
        look_s: float = LOOK_S,
    ) -> None:
        self._command = command
        self._look_s = look_s
        self._files = files
        self._config = config
        self._workers = workers
        self._folder = folder
        self._backoff_s = backoff_s
        self._env = {
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            RECORDS_KEY: os.urandom(KEY_BYTES).hex(),
        }
        self._metrics = SupervisorMetrics(folder / "metrics")
        self._sockets = [worker_socket(folder, index) for index in range(workers)]
        self._records = Workers(self._sockets, self._metrics.watch_dropped)
        self._drift = DriftWorkers(self._sockets)
        self._running: dict[int, Process] = {}
        self._draining = False
        """No worker is started any more."""
        self._telling = Tasks()
        self._farewell = signal.SIGTERM
        """What tells the workers to go."""
        self._stopping = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Run until told to drain; return the exit code."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._drift.run())
            keepers = [group.create_task(self._keep(index)) for index in range(self._workers)]
            await self._stopping.wait()
            watching.cancel()
            self.signal(self._farewell)
            config = self._config
            limit_s = config.drain_delay_seconds + config.drain_seconds + GRACE_S
            _, late = await asyncio.wait(keepers, timeout=limit_s)
            if late:
                log.error("%d workers did not drain within %g s: killed", len(late), limit_s)
                self._exit_code = 1
                self.signal(signal.SIGKILL)
        await self._telling.stop()
        return self._exit_code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every worker."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):  # ended, but not yet waited for
                process.send_signal(number)

    def hang_up(self) -> None:
        """Have every worker read the configuration again; who is only starting reads it anyway."""
        for index, process in self._running.items():
            if worker_socket(self._folder, index).exists():
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """Start the drain, or hurry it; `run` returns when it is over."""
        if self._stopping.is_set():
            self.signal(signal.SIGTERM)
        self._draining = True
        self._stopping.set()
        self._records.close()

    def interrupt(self) -> None:
        """Drain without waiting for clients to move: somebody waits for us."""
        if self._stopping.is_set():
            self.signal(signal.SIGINT)
        else:
            self._farewell = signal.SIGINT
            self.stop()

    async def status(self) -> Status:
        """Ask every worker. Ready when at least one is."""
        answers = [body for _, body in await self._ask_all("GET", "/ready") if body is not None]
        ready = sum(bool(body.get("ready")) for body in answers)
        return Status(
            ready=ready > 0 and not self._draining,
            draining=self._draining,
            in_flight=sum(int(body.get("in_flight", 0)) for body in answers),
            workers=self._workers,
            workers_ready=ready,
            drained=self._draining
            and sum(body.get("drained") is True for body in answers) >= len(self._running),
        )

    async def drain(self, mode: Mode = "exit") -> None:
        """Start the drain of every worker."""
        if mode == "stay":
            if not self._draining:
                self._draining = True
                self._telling.start(self._tell_to_stay())
        elif mode == "now":
            self.interrupt()
        elif not self._stopping.is_set():
            self.stop()

    async def _tell_to_stay(self) -> None:
        """Until every worker has heard it: one may only be starting."""
        while not self._stopping.is_set():
            answers = await self._ask_all("POST", "/drain?stay=1")
            if sum(status == 202 for status, _ in answers) >= len(self._running):
                return
            await asyncio.sleep(RETELL_S)

    async def reload(self) -> bool:
        """Reload in every worker. False when one refused or did not answer."""
        answers = await self._ask_all("POST", "/reload", limit_s=RELOAD_TIMEOUT_S)
        return all(status == 200 for status, _ in answers)

    async def config(self) -> Mapping[str, Any]:
        """Return the configuration in force in a worker, or at start while none answers."""
        bodies = (body for _, body in await self._ask_all("GET", "/config"))
        return next((b for b in bodies if b is not None), self._config.model_dump(mode="json"))

    async def policy(self) -> Mapping[str, Any]:
        """Return which policy the workers run, and why not all run the file's."""
        return await policies.policy(self._sockets)

    async def check_policy(self, text: str) -> list[str] | None:
        """Return what a reload would refuse of a text; None when no worker answers."""
        return await policies.check_policy(self._sockets, text)

    async def metrics(self) -> tuple[str, bytes]:
        """Return the sum over the workers, dead ones included, and our own metrics."""
        return await asyncio.to_thread(self._metrics.exposition)

    async def history(self) -> Mapping[str, Any]:
        """Return what the workers know of query attacks: they have one history."""
        answers = await self._ask_all("GET", "/history")
        return merged(body for status, body in answers if status == 200 and body is not None)

    async def records(
        self,
        model: str | None,
        limit: int,
        before: float | None = None,
        *,
        differing: bool = False,
    ) -> list[dict[str, Any]]:
        """Return the workers' notable samples, or those a shadow judges otherwise; newest first."""
        return await self._records.records(model, limit, before, differing=differing)

    def watch(self, model: str | None, everything: bool) -> AsyncIterator[dict[str, Any]]:
        """Follow the workers' records as they come."""
        return self._records.watch(model, everything)

    async def scores(self, model: str) -> Mapping[str, Any]:
        """Return one sample of the scores of all workers."""
        return await self._records.scores(model)

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return what policies say of one sample of the scores of all workers."""
        kept = await self.scores(model)
        return await explorers.explore(self._sockets, model, candidate, kept["columns"]["id"])

    async def drift(self) -> Mapping[str, Any]:
        """Return what is held of each model's traffic, that of all workers."""
        return await self._drift.shown()

    async def acknowledge(self, model: str | None) -> list[str]:
        """Do as ever about a drift that is known, in all workers."""
        return await self._drift.acknowledge(model)

    async def label(self, id: str, label: str) -> bool:
        """Note what a sample was, at the worker that has it."""
        return await self._records.label(id, label)

    async def forget(self, principal: str | None, model: str | None) -> int:
        """Lift quarantines; return how many. The first worker lifts them for all."""
        said = {"all": "1"} if principal is None else {"principal": principal}
        query = urlencode(said if model is None else {**said, "model": model})
        answers = await self._ask_all("POST", f"/history/clear?{query}")
        reached = [body for status, body in answers if status == 200 and body is not None]
        if len(reached) < self._workers:
            log.warning("%d of %d workers lifted quarantines", len(reached), self._workers)
        return sum(int(body["cleared"]) for body in reached)

    async def _ask_all(
        self, method: str, path: str, *, limit_s: float = ASK_TIMEOUT_S
    ) -> list[tuple[int, dict[str, Any] | None]]:
        asks = (self._ask(index, method, path, limit_s) for index in range(self._workers))
        return await asyncio.gather(*asks)

    async def _ask(
        self, index: int, method: str, path: str, limit_s: float
    ) -> tuple[int, dict[str, Any] | None]:
        """Return status and JSON body; (0, None) when the worker does not answer."""
        connector = aiohttp.UnixConnector(path=str(worker_socket(self._folder, index)))
        timeout = aiohttp.ClientTimeout(total=limit_s)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, f"http://worker{path}") as response,
            ):
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError):
            return 0, None

    async def _is_alive(self, index: int) -> bool:
        """Whether a worker answers, and says that it can go on."""
        connector = aiohttp.UnixConnector(path=str(worker_socket(self._folder, index)))
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get("http://worker/live") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _keep(self, index: int) -> None:
        """Run one worker, and another when it dies."""
        early_deaths = 0
        while not self._draining:
            started = time.monotonic()
            code = await self._run_once(index)
            if self._draining:
                if code not in _ORDERLY:
                    self._exit_code = self._exit_code or 1
                return
            if code == EXIT_CONFIG and not any(self._folder.glob("worker-*.sock")):
                self._exit_code = EXIT_CONFIG
                self._draining = True
                self._stopping.set()
                return
            early_deaths = 1 if time.monotonic() - started > STABLE_S else early_deaths + 1
            wait_s = min(self._backoff_s * 2.0 ** (early_deaths - 1), LONGEST_BACKOFF_S)
            log.error("worker %d ended with code %s; next try in %g s", index, code, wait_s)
            self._metrics.restarted()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()

    async def _run_once(self, index: int) -> int:
        worker_socket(self._folder, index).unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            "--worker-index",
            str(index),
            stdin=PIPE,  # see watch_parent
            env=self._env,
            pass_fds=self._files,
            start_new_session=True,  # Ctrl-C in a terminal is for us to pass on
        )
        self._running[index] = process
        self._metrics.started()
        if self._stopping.is_set():  # while it was being started
            process.terminate()
        looking = self._telling.start(self._look_after(index, process))
        try:
            return await process.wait()
        finally:
            looking.cancel()
            if process.returncode is None:  # we are being cancelled
                process.kill()
            del self._running[index]
            self._metrics.ended(process.pid)

    async def _look_after(self, index: int, process: Process) -> None:
        """Kill a worker that hangs: the kernel would go on giving it connections."""
        unanswered = 0
        while not self._draining:
            await asyncio.sleep(self._look_s)
            if await self._is_alive(index) or not worker_socket(self._folder, index).exists():
                unanswered = 0  # without a socket it is starting, which may take long
            else:
                unanswered += 1
            if unanswered >= HUNG_AFTER and not self._draining:
                log.error("worker %d hangs: killed", index)
                process.kill()
                return


@contextlib.contextmanager
def _reserved(address: str) -> Iterator[str]:
    """Hold the port, without listening, and yield the address with the real port number.

    The workers share it by SO_REUSEPORT, so nothing is lost between one worker and the next.
    """
    host, _, port = address.rpartition(":")
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if int(port):
            # SO_REUSEPORT would let us share the port of another server of the same user.
            with socket.socket(family, kind, proto) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        held = socket.socket(family, kind, proto)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(place)
    except OSError as error:
        raise ConfigError(f"listen address {address}: {error.strerror}") from error
    with held:
        yield f"{host}:{held.getsockname()[1]}"


@contextlib.contextmanager
def _history_file() -> Iterator[int]:
    file = memory_file.create()
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _signals(supervisor: Supervisor) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, supervisor.stop)
    loop.add_signal_handler(signal.SIGINT, supervisor.interrupt)
    loop.add_signal_handler(signal.SIGHUP, supervisor.hang_up)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
