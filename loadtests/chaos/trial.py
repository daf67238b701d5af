"""One fault, tried: traffic before, during and after it, and what is to be told of that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from loadtests.chaos.fault import Fault
from loadtests.chaos.ledger import Ledger
from loadtests.chaos.meanwhile import until
from loadtests.chaos.scene import WORKERS, Scene
from loadtests.chaos.traffic import Traffic
from loadtests.chaos.vitals import Vitals

SETTLES_S = 40.0
"""Longest wait for a scene to be in order before a fault."""
_BEFORE_S, _AFTER_S = 0.7, 0.7
_POLL_S = 0.25
_LOOKS, _LOOK_S = 20, 0.5
"""At the fault's metric, until it has grown: a reload may have to wait for the one before."""


@dataclass
class Trial:
    """What was seen of one fault."""

    fault: Fault
    ledger: Ledger
    before: Vitals
    after: Vitals
    readiness: list[tuple[float, int]] = field(default_factory=list)
    """When /ready was asked, and its status."""
    counted: int = 0
    """By how much the fault's metric grew."""

    @property
    def crashes(self) -> int:
        """Workers that ended, beyond those the fault ended itself, and defects in the log."""
        ended = self.after.restarts - self.before.restarts
        defects = self.after.internal_errors - self.before.internal_errors
        return max(0, ended - self.fault.restarts) + defects

    @property
    def hangs(self) -> int:
        """Requests that outlived their deadline, and one for a scene that never recovered."""
        recovery_s = self.ledger.recovery_s
        slow = recovery_s is None or recovery_s > self.fault.recovers_s
        return self.ledger.hung + slow

    @property
    def uncounted(self) -> int:
        """Tampered inputs passed by `on_failure: open` that the metrics know nothing of."""
        return max(0, self.ledger.opened - (self.after.failed_open - self.before.failed_open))

    @property
    def complaints(self) -> list[str]:
        """What was promised otherwise, beyond the counts."""
        ledger, found = self.ledger, []
        during = [code for at_s, code in self.readiness if ledger.begun_s <= at_s < ledger.healed_s]
        if self.fault.unready is True and 503 not in during:
            found.append("/ready never said 503")
        if self.fault.unready is False and 503 in during:
            found.append("/ready said 503")
        if self.readiness and self.readiness[-1][1] != 200:
            found.append(f"/ready says {self.readiness[-1][1]} at the end")
        if self.fault.metric and not self.counted:
            found.append(f"{self.fault.metric} did not grow")
        if self.after.zombies:
            found.append(f"{self.after.zombies} zombies")
        return found


async def healthy(scene: Scene, traffic: Traffic) -> bool:
    """Whether requests are answered as they should be, a dozen in a row, before long."""
    if scene.triton.has_crashed:  # 2.51 can do so after cancels: its issue 7368, not ours
        await asyncio.to_thread(scene.triton.restart)
    await until(lambda: scene.workers_ready() == WORKERS, SETTLES_S)
    until_s, streak = time.monotonic() + SETTLES_S, 0
    while streak < 12 and time.monotonic() < until_s:
        outcome = await traffic.ask(streak % 8)
        streak = streak + 1 if outcome.is_right else 0
    return streak >= 12


async def attempt(scene: Scene, traffic: Traffic, fault: Fault) -> Trial:
    """Try one fault under load."""
    before = await asyncio.to_thread(scene.vitals)
    metric = await asyncio.to_thread(_value, scene, fault)
    ledger = Ledger(fault.tolerated, fault.suspends)
    readiness: list[tuple[float, int]] = []
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(traffic.run(ledger, stop))
        looking = group.create_task(_look(scene, readiness))
        await asyncio.sleep(_BEFORE_S)
        ledger.begun_s = time.monotonic()
        async with fault.do(scene):
            await asyncio.sleep(fault.lasts_s)
            for _ in range(_LOOKS if fault.metric else 0):  # the fault lasts until it is noticed
                if await asyncio.to_thread(_value, scene, fault) > metric:
                    break
                await asyncio.sleep(_LOOK_S)
        ledger.healed_s = time.monotonic()
        await until(lambda: ledger.recovered_s is not None, 2 * fault.recovers_s)
        await until(lambda: readiness[-1][1] == 200, fault.recovers_s)
        await asyncio.sleep(_AFTER_S)
        stop.set()
        await sending
        looking.cancel()
    counted = await asyncio.to_thread(_value, scene, fault) - metric
    after = await asyncio.to_thread(scene.vitals)
    return Trial(fault, ledger, before, after, readiness, counted)


def _value(scene: Scene, fault: Fault) -> int:
    if not fault.metric:
        return 0
    lines = [line for line in scene.metrics().splitlines() if line.startswith(fault.metric)]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


async def _look(scene: Scene, readiness: list[tuple[float, int]]) -> None:
    while True:
        at_s = time.monotonic()
        readiness.append((at_s, await asyncio.to_thread(scene.ready)))
        await asyncio.sleep(_POLL_S)
