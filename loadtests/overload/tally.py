"""What came of an attack, as its own process counts it."""

from __future__ import annotations

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
        found = self.refusals_ms.copy()  # others go on adding
        slow = np.percentile(found, (50, 99)).tolist() if found else None
        return json.dumps({"counts": self.counts.copy(), "refusals_ms": slow})


Attack = Callable[[Target, Tally], Awaitable[None]]
