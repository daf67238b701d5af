"""The real parts of the soak: Triton, Redis and `breakwater serve` between them."""

from __future__ import annotations

import shutil
import signal
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from loadtests.harness import CHECKOUT, Child, free_port, resident_bytes
from loadtests.query_attacks.redis_server import RedisServer
from loadtests.sidecar import BREAKWATER, Tensor, calibrate, defended
from loadtests.soak.subjects import PARAMS, PURIFIER, SIDE
from loadtests.soak.traffic import HEADER, PURIFYING, REFUSING
from tuning.triton import EmbeddedTriton

DETECTORS = ("residual", "margin", "feature_squeezing", "history")
"""Of every tier: the input alone, the model's answer, its answers to copies, and other queries."""
HISTORY = {"capacity": 4000, "ttl_minutes": 30}
"""Full within the warm-up, so that memory which still grows is a leak."""
_SHARED = {"upstream_shared_memory": "system", "upstream_shared_memory_from_kb": 0}
_SAMPLES = 150
_MODEL = CHECKOUT / "loadtests" / "soak" / "model"


class Stage:
    """What runs; `close` ends it all.

    Args:
        folder: for files and logs.
        workers: of the sidecar.
        shared_memory: whether all tensors, small as they are, reach Triton through shared memory.
    """

    def __init__(self, folder: Path, *, workers: int, shared_memory: bool) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._config = folder / "breakwater.yaml"
        try:
            self.redis = self._stack.enter_context(RedisServer(folder))
            log = folder / "triton.log"
            self.triton = EmbeddedTriton(repository(folder / "models"), log=log)
            self._stack.enter_context(self.triton)
            self._settings = self._configured(shared_memory)
            self.admin: str = self._settings["admin"]
            self.write()
            self.sidecar = self._start(workers)
        except BaseException:
            self._stack.close()
            raise
        self.address: str = self._settings["listen"]

    def write(self, **changes: Any) -> None:
        """Write the configuration file anew, which a running sidecar notices."""
        aside = self._config.with_suffix(".new")
        aside.write_text(yaml.safe_dump({**self._settings, **changes}, sort_keys=False))
        aside.rename(self._config)

    def metrics(self) -> str:
        """One scrape."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def internal_errors(self) -> int:
        """Requests so far that the sidecar failed by its own fault, as its log has it."""
        log = (self.folder / "breakwater.log").read_text(errors="replace")
        return log.count(" ERROR proxy.service: ")

    def resident_mib(self) -> float:
        """Of the sidecar, all its processes."""
        return resident_bytes(self.sidecar.pid) / 2**20

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def _start(self, workers: int) -> Child:
        child = Child(
            "breakwater",
            [BREAKWATER, "serve", "--config", str(self._config), "--workers", str(workers)],
            log=self.folder / "breakwater.log",
            is_ready=self._is_ready,
            stop_by=signal.SIGINT,  # nobody is to be waited for
        )
        self._stack.callback(child.stop)
        return child

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.admin}/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _configured(self, shared_memory: bool) -> dict[str, Any]:
        key = self.folder / "history.key"
        key.write_bytes(b"the same in every worker")
        key.chmod(0o600)
        return {
            "listen": f"127.0.0.1:{free_port()}",
            "upstream": self.triton.grpc_address,
            "admin": f"127.0.0.1:{free_port()}",
            "principal_header": HEADER,
            "audit": {"path": "audit.jsonl"},
            "history": {
                **HISTORY,
                "key_file": str(key),
                "shared": {"url": self.redis.url, "capacity": 20_000},
            },
            **(_SHARED if shared_memory else {}),
            "models": {
                model: defended(
                    calibrate(self.folder, _of(model), self.triton.grpc_address, DETECTORS),
                    DETECTORS,
                    mode="enforce",
                    dispatch="speculative",
                    action=action,
                    purifiers=[{"name": PURIFIER, "params": PARAMS}],
                    # A machine that is busy must not make a late defence look like none.
                    budget_ms=5000,
                )
                for model, action in ((PURIFYING, "purify"), (REFUSING, "block"))
            },
        }


def _of(model: str) -> Tensor:
    return Tensor(model.removeprefix("image_"), SIDE, _SAMPLES)


def repository(folder: Path) -> Path:
    """Write both models, and return the folder."""
    for model in (PURIFYING, REFUSING):
        shutil.copytree(_MODEL, folder / model)
        (folder / model / "config.pbtxt").write_text(
            f'name: "{model}"\nbackend: "python"\nmax_batch_size: 64\n'
            f'input [{{ name: "image" data_type: TYPE_FP32 dims: [3, {SIDE}, {SIDE}] }}]\n'
            'output [{ name: "logits" data_type: TYPE_FP32 dims: [10] },\n'
            '        { name: "digest" data_type: TYPE_UINT32 dims: [2] }]\n'
            "instance_group [{ count: 1 kind: KIND_CPU }]\n"
        )
    return folder
