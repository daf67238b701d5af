"""Where the attacks take place: a real Triton, and sidecars before it as their users run them."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import yaml

from loadtests.harness import CHECKOUT, free_port
from loadtests.query_attacks.grpc_oracle import GrpcOracle, Principal
from loadtests.query_attacks.redis_server import RedisServer
from loadtests.query_attacks.victim import Victim
from loadtests.sidecar import BREAKWATER, start_breakwater
from tuning.triton import EmbeddedTriton

HEADER = "x-principal"
DETECTORS = ("srm", "high_frequency", "history")
"""None that asks the model about copies: a query costs it one call."""
FPR = 0.01
PURIFIERS: tuple[Mapping[str, Any], ...] = ({"name": "jpeg", "params": {"quality": 75}},)
"""What answers decoys."""
ALARMS = "breakwater_history_alarms_total"
UNJUDGED = (
    *("breakwater_detector_failures_total", "breakwater_fail_open_total"),
    "breakwater_unscored_total",
)
DEGRADED = "breakwater_history_degraded_total"


class Site:
    """One sidecar, or several that share their history.

    Args:
        model: name of the model they defend.
        addresses: where clients connect to each.
        admins: where each one's metrics are.
    """

    def __init__(self, model: str, addresses: Sequence[str], admins: Sequence[str]) -> None:
        self.model, self.addresses, self._admins = model, addresses, admins

    def oracle(self, principal: Principal | None = None) -> GrpcOracle:
        """A client that asks all of them in turn."""
        return GrpcOracle(self.addresses, model=self.model, header=HEADER, principal=principal)

    def count(self, *names: str) -> int:
        """The sum of counters over all labels and sidecars, now."""
        return round(sum(_scraped(admin, names) for admin in self._admins))

    @property
    def alarms(self) -> int:
        """Queries so far that were part of what looks like an attack."""
        return self.count(ALARMS)

    @property
    def degraded(self) -> int:
        """Times the shared history could not be asked or told so far."""
        return self.count(DEGRADED)


class Scene:
    """Triton with the victim, a calibration, and sidecars on demand; a context manager.

    Args:
        folder: for configurations, the calibration and logs.
        victim: what is defended.
        fpr: of single requests. The history's own is its default.
    """

    def __init__(self, folder: Path, victim: Victim, *, fpr: float = FPR) -> None:
        self.victim = victim
        self._folder, self._fpr = folder, fpr
        self._triton = EmbeddedTriton(
            victim.write_repository(folder / "models"), log=folder / "triton.log"
        )
        self._calibration = folder / "calibration"
        self._numbers = itertools.count(1)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._triton)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def calibrate(self) -> None:
        """Run `breakwater calibrate`.

        Raises:
            RuntimeError: it failed; the text is its own.
        """
        data = self._folder / "benign.npz"
        np.savez(data, x=self.victim.calibration.numpy())
        config = self._config("calibrate", {}, None)
        ran = subprocess.run(
            [
                *(BREAKWATER, "calibrate", "--config", str(config)),
                *("--model", self.victim.name, "--data", str(data)),
            ],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
        )
        if ran.returncode != 0:
            raise RuntimeError(f"breakwater calibrate: {(ran.stdout + ran.stderr)[-2000:]}")

    @contextlib.contextmanager
    def site(
        self, count: int = 1, *, shared: bool = False, **query_attacks: str | float
    ) -> Iterator[Site]:
        """New sidecars, which remember nothing yet.

        Args:
            count: how many; several share their history.
            shared: one alone keeps its history in Redis too.
            query_attacks: as in the configuration.

        Raises:
            RuntimeError: one did not start, or passed a request without judging it: what was
                measured is then not the defence.
        """
        with contextlib.ExitStack() as stack:
            redis = None
            if shared or count > 1:
                redis = stack.enter_context(RedisServer(self._folder)).url
            addresses, admins, logs = [], [], []
            for _ in range(count):
                config = self._config(f"sidecar-{next(self._numbers)}", query_attacks, redis)
                child, address = start_breakwater(config)
                stack.callback(child.stop)
                addresses.append(address)
                logs.append(config.with_suffix(".log"))
                admins.append(yaml.safe_load(config.read_text())["admin"])
            site = Site(self.victim.name, addresses, admins)
            try:
                yield site
            except Exception as error:
                for log in logs:
                    error.add_note(f"{log.name} ends:\n{log.read_text()[-1000:]}")
                raise
            if unjudged := site.count(*UNJUDGED):
                raise RuntimeError(f"{unjudged} requests passed without a verdict")

    def _config(self, name: str, query_attacks: Mapping[str, Any], redis: str | None) -> Path:
        history: dict[str, Any] = {}
        if redis is not None:
            key = self._folder / "history.key"
            key.write_bytes(b"the same on all replicas")
            key.chmod(0o600)
            history = {"key_file": str(key), "shared": {"url": redis}}
        document = {
            "listen": f"127.0.0.1:{free_port()}",
            "upstream": self._triton.grpc_address,
            "admin": f"127.0.0.1:{free_port()}",
            "principal_header": HEADER,
            "audit": {"path": f"{name}-audit.jsonl"},
            "history": history,
            "models": {self.victim.name: self._model(query_attacks)},
        }
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def _model(self, query_attacks: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "inputs": [{"name": "image", "layout": "NCHW", "range": [0, 1]}],
            "output": {"name": "logits", "kind": "logits"},
            "calibration": str(self._calibration),
            "mode": "enforce",
            "action": "flag",  # of single requests: only series are acted on
            "fpr": self._fpr,
            # A busy machine must not make a defence that is late look like none.
            "budget_ms": 5000,
            "query_attacks": dict(query_attacks),
            "detectors": [{"name": name} for name in DETECTORS],
            "purifiers": list(PURIFIERS),
        }


def _scraped(admin: str, names: Sequence[str]) -> float:
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(names) and line[0] != "#"
    )
