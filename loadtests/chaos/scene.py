"""What runs: a real Triton, a real Redis, a wire to each, a liar, and the sidecar between them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import yaml

from loadtests.chaos import switch
from loadtests.chaos.liar import Liar
from loadtests.chaos.relay import Relay
from loadtests.chaos.vitals import Vitals, descriptors_of, is_json, is_zombie, total
from loadtests.harness import CHECKOUT, Child, free_port
from loadtests.query_attacks.redis_server import RedisServer
from loadtests.sidecar import BREAKWATER, Tensor, calibrate, defended
from loadtests.soak import stage
from loadtests.soak.subjects import PARAMS, PURIFIER, SIDE
from loadtests.soak.traffic import HEADER, PURIFYING, REFUSING
from tuning.processes import resident_bytes
from tuning.triton import EmbeddedTriton

WORKERS = 2
HOST = "triton.chaos.test"
"""The upstream's name, where a namespace of our own lets us say what it stands for."""
DETECTORS = ("residual", "margin", "feature_squeezing", "history", switch.NAME)
BUDGET_MS = 1500
UPSTREAM_TIMEOUT_S = 3.0
_DISK_KB, _TEMPORARY_KB = 8_192, 65_536
_ENTER = """\
mount -t tmpfs -o size={disk}k none {folder}/disk &&
mount -t tmpfs -o size={tmp}k none {folder}/tmp &&
mount --bind {folder}/hosts /etc/hosts &&
exec "$@"
"""


class Scene:
    """An asynchronous context manager; starts everything, and ends it.

    Args:
        folder: for files and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk, self.temporary = folder / "disk", folder / "tmp"
        self.switch, self.hosts = folder / "switch", folder / "hosts"
        self.config = folder / "breakwater.yaml"
        self.settings: dict[str, Any] = {}
        self.namespaced = _may_unshare()
        """Whether the sidecar has disks and a hosts file of its own."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for each in (self.disk, self.temporary):
            each.mkdir(parents=True)
        self.name(HOST)
        self.switch.touch()
        _install(self.folder)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        enter = self._stack.enter_context
        self.redis = enter(RedisServer(self.folder))
        models = stage.repository(self.folder / "models")
        self.triton = enter(EmbeddedTriton(models, log=self.folder / "triton.log"))
        self.liar = await self._stack.enter_async_context(Liar(self.triton.grpc_address))
        self.wire = await self._stack.enter_async_context(
            Relay(("127.0.0.1", self.triton.grpc_port))
        )
        self.memory_wire = await self._stack.enter_async_context(
            Relay(("127.0.0.1", self.redis.port))
        )
        self.settings = self._settings()
        self.write()
        self.sidecar = await asyncio.to_thread(self._serve)  # the wires are ours to serve
        self._stack.callback(self.sidecar.stop)

    # -- what faults change --------------------------------------------------------------------

    def write(self, **changes: Any) -> None:
        """Write the configuration anew, in one step."""
        aside = self.config.with_suffix(".new")
        aside.write_text(yaml.safe_dump({**self.settings, **changes}, sort_keys=False))
        aside.rename(self.config)

    def name(self, host: str) -> None:
        """Let this name stand for the model server's machine, and no other."""
        self.hosts.write_text(f"127.0.0.1 localhost {host}\n")

    def inside(self, path: Path) -> Path:
        """Where a path of the sidecar's is for us: its file systems may be its own."""
        return Path(f"/proc/{self.sidecar.pid}/root{path}") if self.namespaced else path

    # -- what is looked at ---------------------------------------------------------------------

    @property
    def workers(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        file = Path(f"/proc/{self.sidecar.pid}/task/{self.sidecar.pid}/children")
        try:
            return tuple(int(pid) for pid in file.read_text().split())
        except OSError:
            return ()

    def vitals(self) -> Vitals:
        """How the sidecar's processes are now."""
        pids = (self.sidecar.pid, *self.workers)
        text = self.metrics()
        log = (self.folder / "breakwater.log").read_text(errors="replace")
        return Vitals(
            pids=pids,
            resident_mib=resident_bytes(self.sidecar.pid) / 2**20,
            descriptors=sum(descriptors_of(pid) for pid in pids),
            zombies=sum(is_zombie(pid) for pid in pids),
            restarts=total(text, "breakwater_worker_restarts_total"),
            failed_open=total(text, "breakwater_fail_open_total"),
            internal_errors=log.count(" ERROR proxy.service: ") + log.count("Fatal Python error"),
        )

    def metrics(self) -> str:
        """One scrape; empty where the admin port does not answer."""
        try:
            with urllib.request.urlopen(self._admin("/metrics"), timeout=5) as answer:
                text: str = answer.read().decode()
        except OSError:
            return ""
        return text

    def ready(self, path: str = "/ready") -> int:
        """Status of the admin port's answer; 0: none."""
        try:
            with urllib.request.urlopen(self._admin(path), timeout=3) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def workers_ready(self) -> int:
        """How many workers take requests, as the supervisor has it."""
        try:
            with urllib.request.urlopen(self._admin("/ready"), timeout=3) as answer:
                return int(json.loads(answer.read())["workers_ready"])
        except (OSError, ValueError, KeyError):
            return 0

    def bad_audit_lines(self) -> tuple[int, int]:
        """Lines of the audit log that cannot be read, and all of them."""
        text = (self.inside(self.disk) / "audit.jsonl").read_bytes()
        lines = [line for line in text.split(b"\n") if line]
        return sum(not is_json(line) for line in lines), len(lines)

    def _admin(self, path: str) -> str:
        return f"http://{self.settings['admin']}{path}"

    # -- the sidecar ---------------------------------------------------------------------------

    def _serve(self) -> Child:
        command = [BREAKWATER, "serve", "--config", str(self.config), "--workers", str(WORKERS)]
        if self.namespaced:
            enter = _ENTER.format(disk=_DISK_KB, tmp=_TEMPORARY_KB, folder=self.folder)
            command = ["unshare", "-m", "--", "sh", "-c", enter, "sh", *command]
        return Child(
            "breakwater",
            command,
            log=self.folder / "breakwater.log",
            is_ready=lambda: self.ready() == 200,
            environment={"TMPDIR": str(self.temporary), switch.VARIABLE: str(self.switch)},
            stop_by=signal.SIGINT,
        )

    def _settings(self) -> dict[str, Any]:
        key = self.folder / "history.key"
        key.write_bytes(b"the same in every worker")
        key.chmod(0o600)
        host = HOST if self.namespaced else "127.0.0.1"
        return {
            "listen": f"127.0.0.1:{free_port()}",
            "upstream": f"{host}:{self.wire.port}",
            "admin": f"127.0.0.1:{free_port()}",
            "principal_header": HEADER,
            "upstream_timeout_s": UPSTREAM_TIMEOUT_S,
            "audit": {"path": str(self.disk / "audit.jsonl")},
            "history": {
                **stage.HISTORY,
                "key_file": str(key),
                "shared": {"url": f"redis://{self.memory_wire.address}", "capacity": 20_000},
            },
            "models": {
                PURIFYING: self._model(PURIFYING, action="purify", on_failure="open"),
                REFUSING: self._model(REFUSING, action="block", on_failure="closed"),
            },
        }

    def _model(self, name: str, **policy: Any) -> dict[str, Any]:
        policy |= {
            "purifiers": [{"name": PURIFIER, "params": PARAMS}],
            "budget_ms": BUDGET_MS,
            "mode": "enforce",
            "dispatch": "speculative",
        }
        tensor = Tensor(name.removeprefix("image_"), SIDE, 150)
        calibration = calibrate(self.folder, tensor, self.triton.grpc_address, DETECTORS)
        return defended(calibration, DETECTORS, **policy)


def _install(folder: Path) -> None:
    """Make the plug-in known to the sidecar without installing it here."""
    told = folder / "plugin" / "breakwater_chaos-1.dist-info"
    told.mkdir(parents=True)
    told.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: breakwater-chaos\nVersion: 1\n"
    )
    told.joinpath("entry_points.txt").write_text(
        f"[breakwater.detectors]\n{switch.NAME} = loadtests.chaos.switch:Switch\n"
    )
    known = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(told.parent), str(CHECKOUT), known))
    )


def _may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-m", "--", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0
