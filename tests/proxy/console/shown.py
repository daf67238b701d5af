"""A proxy as the console sees it, with everything to be seen, and the browser that looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Browser, Page, async_playwright, expect
from prometheus_client import CollectorRegistry

from proxy import configfile
from proxy.admin import Admin, Status
from proxy.console.routes import Console
from proxy.control.access import Access, Token
from proxy.control.control import Control
from proxy.control.policy_file import PolicyFile, digest_of
from proxy.errors import ConfigError
from proxy.metrics import Metrics
from tests.proxy.test_admin import FakeTarget

CHROMIUM = "/usr/bin/chromium"
TOKEN = "only-the-tests-know-this-one"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
POLICY = """\
# What the tests change, with a comment that has to stay.
models:
  cnn:
    mode: enforce
    action: purify
    fpr: 0.01  # one in a hundred
    calibration: calibration
    detectors: [{name: residual}, {name: margin}, {name: energy}]
    purifiers: [{name: median}]
  plain: {}
"""
DETECTORS = ["residual", "margin", "energy"]
FPRS = [round(float(x), 6) for x in np.geomspace(0.0005, 0.2, 60)]
LIMIT_MS = 20_000
"""Generous: a busy machine is no failure."""

expect.set_options(timeout=LIMIT_MS)


def record(index: int, **fields: Any) -> dict[str, Any]:
    """One suspicious sample as the API tells it."""
    return {
        "id": f"{index:032x}:0",
        "time_s": 1_700_000_000.0 + index,
        "model": "cnn",
        "version": "1",
        "principal": "ipv4:10.0.0.7",
        "client_id": f"c{index}",
        "verdict": "suspicious",
        "score": 3.5 + index / 100,
        "threshold": 2.5,
        "scores": {"residual": 4.0},
        "p_values": {"residual": 0.001, "margin": 0.4, "energy": 0.03},
        "reason": "residual",
        "chain": 0,
        "alarm": False,
        "quarantined": False,
        "failure": "",
        "action": "purify",
        "outcome": "ok",
        "streamed": False,
        "stage_ms": {"total": 4.2},
        "label": "",
        "shadow": "",
        "thumbnail": "",
        **fields,
    }


class ShownTarget(FakeTarget):
    """A proxy with two models, one of them defended, that has seen traffic."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.generation = 1
        self.in_force = path.read_text()
        self.registry = CollectorRegistry()
        self.count = Metrics(self.registry)
        self.count.configure({"cnn": DETECTORS, "plain": []})
        self.count.config_loaded(1)
        self.kept: list[dict[str, Any]] = []
        self.labels: dict[str, str] = {}
        self.explored: list[Mapping[str, Any] | None] = []
        self.checked = 0
        self.live = True
        self.evaluated = True
        self._queues: set[asyncio.Queue[dict[str, Any]]] = set()
        self.traffic()

    def traffic(self, requests: int = 200) -> None:
        cnn = self.count.model("cnn")
        for i in range(requests):
            suspicious = i % 20 == 0
            cnn.request("purify" if suspicious else "none", "ok")
            cnn.sample("suspicious" if suspicious else "pass")
            for stage, scale in (("read", 0.0002), ("score", 0.003), ("total", 0.006)):
                cnn.stage(stage, scale * (1 + (i % 17) / 4))
            self.count.model("plain").request("none", "ok")
        cnn.threshold("all", 2.5, 0.013)
        cnn.dispatch(speculative=True)

    def push(self, item: dict[str, Any]) -> None:
        """A sample has been recorded."""
        self.kept.insert(0, item)
        for queue in self._queues:
            queue.put_nowait(item)

    async def status(self) -> Status:
        return Status(ready=True, draining=False, in_flight=3, workers=2, workers_ready=2)

    @property
    def fpr(self) -> float:
        return configfile.parse(self.path, self.in_force).models["cnn"].fpr

    async def config(self) -> Mapping[str, Any]:
        return configfile.parse(self.path, self.in_force).model_dump(mode="json")

    async def policy(self) -> Mapping[str, Any]:
        digests = [digest_of(self.in_force)]
        return {"generation": self.generation, "digests": digests, "refusal": ""}

    async def check_policy(self, text: str) -> list[str]:
        self.checked += 1
        try:
            configfile.parse(self.path, text)
        except ConfigError as error:
            return str(error).splitlines()
        return []

    async def reload(self) -> bool:
        self.in_force = self.path.read_text()
        self.generation += 1
        return True

    async def metrics(self) -> tuple[str, bytes]:
        if self.broken:
            raise RuntimeError("/etc/secret is unreadable")
        return self.count.exposition()

    async def history(self) -> Mapping[str, Any]:
        eve = {
            "model": "cnn",
            "principal": HOSTILE,
            "alarms": 3,
            "penalty": 2.0,
            "quarantined_for_s": 90.0,
            "first_alarm": 1_700_000_000.0,
            "last_alarm": 1_700_000_100.0,
            "longest_chain": 41,
        }
        return {"remembered": 7, "shared": None, "principals": [eve]}

    async def records(
        self, model: str | None, limit: int, *, differing: bool = False
    ) -> list[dict[str, Any]]:
        found = [each for each in self.kept if model in (None, each["model"])]
        return [each for each in found if each["shadow"] or not differing][:limit]

    async def watch(self, model: str | None, everything: bool) -> AsyncIterator[dict[str, Any]]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

    @property
    def followed(self) -> int:
        """How many pages follow."""
        return len(self._queues)

    async def scores(self, model: str) -> Mapping[str, Any]:
        return {}

    async def label(self, id: str, label: str) -> bool:
        if not any(each["id"] == id for each in self.kept):
            return False
        self.labels[id] = label
        return True

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        self.explored.append(candidate)
        found = self._side(shift=0.0, detectors=DETECTORS)
        ids = [f"live-{i}:0" for i in range(len(found["live"]["fused"]))]
        verdicts = [
            "suspicious" if s > _threshold(self.fpr) else "pass" for s in found["live"]["fused"]
        ]
        live = {"ids": ids, "verdict": verdicts, "total_ms": [4.0] * len(ids), "unknown": 7}
        other = None
        if candidate is not None:
            other = self._side(shift=0.5, detectors=candidate["detectors"])
            other = {**other.pop("policy"), **other}
        return {
            "model": model,
            "current": found.pop("policy"),
            **found,
            "live": {**live, **found["live"]},
            "evaluation_problem": "",
            "candidate": other,
            "purify_ms": {"p50": 2.0, "p99": 5.0},
        }

    def _side(self, *, shift: float, detectors: Sequence[str]) -> dict[str, Any]:
        """A policy, its grid and its scores."""
        rng = np.random.default_rng(5)
        live = np.round(rng.normal(1.5 + shift, 0.8, 400 if self.live else 0), 4).tolist()
        attacks = {
            name: {
                "fused": rng.normal(at + shift, 1.0, 60).tolist(),
                "threat": threat,
                "tuned_on": threat == "oblivious",
            }
            for name, at, threat in (("pgd", 4.0, "oblivious"), ("bpda", 2.0, "adaptive"))
        }
        return {
            "policy": {
                "fpr": self.fpr,
                "threshold": _threshold(self.fpr),
                "fpr_upper": 1.3 * self.fpr,
                "detectors": list(detectors),
                "cascade": None,
            },
            "fprs": FPRS,
            "thresholds": [_threshold(fpr) for fpr in FPRS],
            "benign_upper": [1.3 * fpr for fpr in FPRS],
            "live": {"fused": live},
            "evaluation": {
                "attacks": attacks,
                "benign": {"jpeg": rng.normal(0.5, 1.0, 100).tolist()},
                "unseen": {"fog": rng.normal(1.0, 1.0, 100).tolist()},
                "ood": {},
                "date": "2026-11-20",
            }
            if self.evaluated
            else None,
        }


def _threshold(fpr: float) -> float:
    return round(1.0 - math.log(fpr) / 2, 4)


@dataclass
class Shown:
    """A console on a free port."""

    target: ShownTarget
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@contextlib.asynccontextmanager
async def showing(folder: Path, token_file: Path | None = None) -> AsyncIterator[Shown]:
    """A started admin listener with the console on it."""
    path = folder / "breakwater.yaml"
    path.write_text(POLICY)
    target = ShownTarget(path)
    access = Access(None if token_file is None else Token(token_file))
    admin = Admin(target, Console(target, Control(target, PolicyFile(path), access)))
    address = await admin.start("127.0.0.1:0")
    try:
        yield Shown(target, address)
    finally:
        started = time.monotonic()
        await admin.stop()
        assert time.monotonic() - started < 1.5, "a page that follows held up the exit"


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def looking(
    browser: Browser,
    url: str,
    *,
    allowed: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[Page]:
    """A page that must not have had any error by the end, but for texts with one of `allowed`."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.set_default_timeout(LIMIT_MS)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        lambda said: (
            troubles.append(f"{said.text} {said.location}")
            if said.type in ("error", "warning")
            else None
        ),
    )
    await page.goto(url)
    try:
        yield page
    finally:
        title = await page.title()
        await context.close()
    assert title.endswith("Breakwater console")  # what a client chose would have put another
    unexpected = [each for each in troubles if not any(text in each for text in allowed)]
    assert not unexpected
