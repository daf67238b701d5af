"""What came of an attack, as its own process counts it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import numpy as np

REFUSED = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Target:
    """What is attacked, and how hard.

    Args:
        address: where the sidecar listens.
        seconds: how long.
        rate: requests a second, for attacks that have a rate.
    """

    address: str
    seconds: float
    rate: float = 0.0


@dataclass
class Tally:
    """Counts by name, and how long refusals took."""

    counts: Counter[str] = field(default_factory=Counter)
    refusals_ms: list[float] = field(default_factory=list)

    async def unary(self, call: grpc.aio.UnaryUnaryCall) -> bytes | None:
        """Wait for an answer, and count its status."""
        began_s = time.monotonic()
        try:
            data: bytes = await call
        except grpc.aio.AioRpcError as error:
            name = error.code().name
            self.counts[name] += 1
            if name == REFUSED:
                self.refusals_ms.append(1000 * (time.monotonic() - began_s))
            return None
        self.counts["OK"] += 1
        return data

    def told(self) -> str:
        """As JSON, on one line."""
        slow = np.percentile(self.refusals_ms, (50, 99)).tolist() if self.refusals_ms else None
        return json.dumps({"counts": dict(self.counts), "refusals_ms": slow})


Attack = Callable[[Target, Tally], Awaitable[None]]


async def for_its_time(attack: Attack, target: Target) -> Tally:
    """Let an attack go on for as long as it is to, and say what came of it."""
    tally = Tally()
    try:
        async with asyncio.timeout(target.seconds):
            await attack(target, tally)
    except TimeoutError:
        pass
    return tally
