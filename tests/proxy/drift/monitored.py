"""A defended pipeline whose traffic is watched by a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from proxy.drift.gauges import DriftMetrics
from proxy.drift.population import Population
from proxy.drift.watch import Watch
from proxy.errors import Blocked
from tests.defended import Defended, Opener
from tests.images import benign, request

MODEL = "digits_like_fp16"
HOUR_S = 3600.0
START_S = 1_700_000_000.0
COUNT = 400
"""Samples of the window by count in these tests: two looks as it fills."""
DAILY = {"windows": {"count": COUNT, "minutes": 10_080}, "false_alarm_days": 1}


class Clock:
    """Unix time, as the test says."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Monitored:
    """A pipeline, the watch over it, and its traffic."""

    pipeline: Defended
    watch: Watch
    clock: Clock
    registry: CollectorRegistry
    blocked: int = 0
    _sent: int = field(default=0)

    @property
    def population(self) -> Population:
        """The model's."""
        found = self.pipeline.defences.find(MODEL).population
        assert found is not None
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a drift metric's samples with at least these labels."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"breakwater_{name}" and labels.items() <= sample.labels.items()
        )

    async def send(
        self, x: NDArray[np.float32], *, principal: str | None = None, size: int = 8
    ) -> None:
        """Samples in requests, each by another of 97 principals unless it is said by whom."""
        for start in range(0, len(x), size):
            self._sent += 1
            who = principal or f"client-{self._sent % 97}"
            try:
                await self.pipeline.infer(request(MODEL, x[start : start + size]), principal=who)
            except Blocked:
                self.blocked += 1

    async def look(self, *, hours: float = 1.0) -> None:
        """Let time pass and take a look."""
        self.pipeline.pipeline.flush()
        self.clock.now_s += hours * HOUR_S
        await self.watch.tick()

    async def fill(self, x: NDArray[np.float32]) -> None:
        """Send half a window by count, from 50 principals, and look at it."""
        assert len(x) == COUNT // 2
        await self.send(x, size=4)
        await self.look()


def ordinary(seed: int, count: int = COUNT // 2) -> NDArray[np.float32]:
    """Traffic like the calibration's."""
    return benign(count, seed=1000 + seed)


def dark(seed: int, count: int = COUNT // 2) -> NDArray[np.float32]:
    """The same scenes at night: harmless, but not what the calibration has seen."""
    return (ordinary(seed, count) * 0.25).astype(np.float32)


@asynccontextmanager
async def monitored(opened: Opener, **fields: Any) -> AsyncIterator[Monitored]:
    """A pipeline for one model, with the fields that differ."""
    drift = {**DAILY, **fields.pop("drift", {})}
    async with opened({MODEL: {**fields, "drift": drift}}) as d:
        clock, registry = Clock(), CollectorRegistry()
        watch = Watch(DriftMetrics(registry), key=b"k" * 16, decides=True, now=clock)
        watch.follow(d.defences)
        yield Monitored(d, watch, clock, registry)
