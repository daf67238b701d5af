"""A real Triton and one `breakwater serve` process with bounds small enough to be reached."""

from __future__ import annotations

import shutil
import signal
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import yaml

from loadtests.chaos.vitals import descriptors_of
from loadtests.harness import CHECKOUT, Child, free_port
from loadtests.sidecar import BREAKWATER, Tensor, calibrate, defended
from loadtests.soak import stage
from loadtests.soak.subjects import PARAMS, PURIFIER, SIDE
from loadtests.soak.traffic import HEADER, PURIFYING, REFUSING
from tuning.processes import resident_bytes
from tuning.triton import EmbeddedTriton

BULK = "bulk"
"""The model that gives back what it gets, or what it is asked for; nobody defends it."""
MIB = 1 << 20
MESSAGE_MIB, INFLIGHT_MIB, UNTAKEN_MIB, MEMORY_MIB = 128, 256, 256, 1536
CONNECTIONS, WAITING, IN_FLIGHT, STREAMS = 1200, 512, 64, 32
DETECTORS = ("residual", "margin", "feature_squeezing")
_MODEL = CHECKOUT / "loadtests" / "overload" / "model"
_LOOK_S = 0.02


class Scene:
    """A context manager; starts everything, and ends it.

    Args:
        folder: for files and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        models = stage.repository(self.folder / "models")
        shutil.copytree(_MODEL, models / BULK, dirs_exist_ok=True)
        (models / BULK / "config.pbtxt").write_text(
            f'name: "{BULK}"\nbackend: "python"\nmax_batch_size: 0\n'
            'input [{ name: "bytes" data_type: TYPE_UINT8 dims: [-1] optional: true },\n'
            '       { name: "size" data_type: TYPE_INT32 dims: [1] optional: true }]\n'
            'output [{ name: "same" data_type: TYPE_UINT8 dims: [-1] }]\n'
            "instance_group [{ count: 1 kind: KIND_CPU }]\n"
        )
        log = self.folder / "triton.log"
        self.triton = self._stack.enter_context(EmbeddedTriton(models, log=log))
        self.settings = self._settings()
        config = self.folder / "breakwater.yaml"
        config.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        self.sidecar = Child(
            "breakwater",
            [BREAKWATER, "serve", "--config", str(config)],
            log=self.folder / "breakwater.log",
            is_ready=self.is_ready,
            stop_by=signal.SIGINT,
        )
        self._stack.callback(self.sidecar.stop)

    # -- what is looked at ---------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where clients connect."""
        return str(self.settings["listen"])

    def is_ready(self) -> bool:
        """Whether the sidecar takes requests."""
        try:
            with urllib.request.urlopen(self._admin("/ready"), timeout=3) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def is_running(self) -> bool:
        """Whether the sidecar's process is there."""
        return self.sidecar.is_running

    def defects(self) -> int:
        """Errors by the sidecar's own fault, as its log has them."""
        log = (self.folder / "breakwater.log").read_text(errors="replace")
        return log.count(" ERROR ") + log.count("Traceback") + log.count("Fatal Python error")

    def resident_mib(self) -> float:
        """Of the sidecar's process."""
        return resident_bytes(self.sidecar.pid) / MIB

    def descriptors(self) -> int:
        """Of the sidecar's process."""
        return descriptors_of(self.sidecar.pid)

    def _admin(self, path: str) -> str:
        return f"http://{self.settings['admin']}{path}"

    def _settings(self) -> dict[str, Any]:
        return {
            "listen": f"127.0.0.1:{free_port()}",
            "upstream": self.triton.grpc_address,
            "admin": f"127.0.0.1:{free_port()}",
            "principal_header": HEADER,
            "audit": {"path": str(self.folder / "audit.jsonl")},
            "upstream_cancels_per_second": 0,  # this Triton may crash of them: its issue 7368
            "max_message_bytes": MESSAGE_MIB * MIB,
            "max_in_flight": IN_FLIGHT,
            "inflow": {
                "max_connections": CONNECTIONS,
                "max_waiting": WAITING,
                "max_streams": STREAMS,
                "max_bytes_in_flight": INFLIGHT_MIB * MIB,
                "max_untaken_bytes": UNTAKEN_MIB * MIB,
                "max_memory_mb": MEMORY_MIB,
            },
            "models": {
                PURIFYING: self._model(PURIFYING, action="purify"),
                REFUSING: self._model(REFUSING, action="block", on_failure="closed"),
            },
        }

    def _model(self, name: str, **policy: Any) -> dict[str, Any]:
        policy |= {
            "purifiers": [{"name": PURIFIER, "params": PARAMS}],
            "budget_ms": 5000,  # a busy machine must not make a late defence look like none
            "mode": "enforce",
            "fpr": 0.01,  # or clean images that are flagged would count as lost
        }
        tensor = Tensor(name.removeprefix("image_"), SIDE, 600)
        calibration = calibrate(self.folder, tensor, self.triton.grpc_address, DETECTORS)
        return defended(calibration, DETECTORS, **policy)


class Peak:
    """The most memory and descriptors of the sidecar while it is open, looked at 50 times a second.

    Args:
        scene: whose.
    """

    def __init__(self, scene: Scene) -> None:
        self.mib = 0.0
        self.descriptors = 0
        self._scene = scene
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_LOOK_S):
            self.mib = max(self.mib, self._scene.resident_mib())
            self.descriptors = max(self.descriptors, self._scene.descriptors())
