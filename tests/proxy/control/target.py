"""A proxy without traffic: it only has a policy, from a real file."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy import configfile
from proxy.admin import Status
from proxy.errors import ConfigError

RECORD: Mapping[str, Any] = {
    "id": "r1:0",
    "time_s": 1.7e9,
    "model": "cnn",
    "principal": "eve\x1b[2J\ud800",
    "verdict": "suspicious",
    "score": 3.5,
    "threshold": None,
    "scores": {"margin": 0.5, "energy": None},
    "p_values": {"margin": 0.001},
    "chain": 3,
    "action": "block",
    "stage_ms": {"total": 2.5},
    "shadow": "pass",
    "of a later version": 1,
}


class PolicyTarget:
    """Puts a file in force as a server does; `refusing` and `gate` make it act up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 1
        self.running = configfile.load(path)
        self.digest = _digest(path)
        self.refusal = ""
        self.refusing: set[str] = set()
        """Digests of texts that are refused on reload although the check found nothing."""
        self.problems: list[str] | None = []
        self.checking = asyncio.Event()
        self.reloading = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.check_gate = asyncio.Event()
        self.check_gate.set()
        self.drained = False
        self.labels: dict[str, str] = {}
        self.told: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.watching = 0
        self.left = asyncio.Event()
        self.forgotten: list[tuple[str | None, str | None]] = []
        self.broken = False

    async def status(self) -> Status:
        if self.broken:
            raise RuntimeError("/etc/secret cannot be read")
        return Status(ready=not self.drained, draining=self.drained, in_flight=3)

    async def drain(self, mode: str = "exit") -> None:
        self.drained = True

    async def drift(self) -> Mapping[str, Any]:
        return {"cnn": {"drifting": True}}

    async def acknowledge(self, model: str | None) -> Sequence[str]:
        return ["cnn"]

    async def reload(self) -> bool:
        digest = _digest(self.path)
        self.reloading.set()
        await self.gate.wait()
        try:
            if digest in self.refusing:
                raise ConfigError("no room for its networks")
            self.running = configfile.load(self.path)
        except ConfigError as error:
            self.refusal = str(error)
            return False
        self.refusal = ""
        self.digest = digest
        self.generation += 1
        return True

    async def config(self) -> Mapping[str, Any]:
        return self.running.model_dump(mode="json")

    async def metrics(self) -> tuple[str, bytes]:
        return "text/plain", b""

    async def policy(self) -> Mapping[str, Any]:
        digests = [self.digest]
        return {"generation": self.generation, "digests": digests, "refusal": self.refusal}

    async def check_policy(self, text: str) -> Sequence[str] | None:
        self.checking.set()
        await self.check_gate.wait()
        return self.problems

    async def history(self) -> Mapping[str, Any]:
        eve = {"model": "cnn", "principal": "eve", "alarms": 2, "last_alarm": 1.5, "penalty": 1}
        return {"remembered": 7, "shared": {"state": "up"}, "principals": [eve]}

    async def forget(self, principal: str | None, model: str | None) -> int:
        self.forgotten.append((principal, model))
        return 2

    async def records(
        self, model: str | None, limit: int, *, differing: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        found = [RECORD] if differing else [RECORD, {**RECORD, "id": "r0:0", "shadow": ""}]
        return found[:limit] if model in (None, "cnn") else []

    async def watch(self, model: str | None, everything: bool) -> AsyncIterator[Mapping[str, Any]]:
        self.watching += 1
        try:
            while True:
                yield await self.told.get()
        finally:
            self.watching -= 1
            self.left.set()

    async def scores(self, model: str) -> Mapping[str, Any]:
        return {"model": model, "columns": {"fused": [0.5, None]}}

    async def label(self, id: str, label: str) -> bool:
        self.labels[id] = label
        return id == RECORD["id"]

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return {"model": model, "candidate": candidate}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
