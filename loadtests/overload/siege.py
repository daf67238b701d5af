"""One situation, tried: ordinary clients before, during and after it, and what was seen of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import numpy as np

from loadtests.chaos.ledger import PURIFIED, REFUSED, SERVED, Ledger
from loadtests.chaos.meanwhile import until
from loadtests.chaos.traffic import Traffic
from loadtests.harness import CHECKOUT
from loadtests.overload.scene import Peak, Scene
from loadtests.overload.situations import Situation

_BEFORE_S, _AFTER_S, _RECOVERS_S = 2.0, 1.0, 30.0
_ENDS_S = 60.0
_RIGHT = (SERVED, PURIFIED, REFUSED)


@dataclass
class Siege:
    """What was seen of one situation."""

    situation: Situation
    ledger: Ledger
    counts: dict[str, int]
    """What the attacker counted."""
    refusals_ms: tuple[float, float] | None
    """Median and 99th percentile of the time from a request to its refusal, as the attacker has
    it, behind all that it sent before; None: nothing was refused."""
    rest_mib: float
    peak_mib: float
    after_mib: float
    peak_descriptors: int
    crashes: int

    def latency_ms(self, *, during: bool) -> float:
        """Median time of ordinary clients' right answers, during the attack or before it."""
        ledger = self.ledger
        chosen = [
            1000 * (each.done_s - each.sent_s)
            for each in ledger.outcomes
            if each.told in _RIGHT
            and each.sent_s < ledger.healed_s
            and (each.sent_s >= ledger.begun_s) is during
        ]
        return float(np.median(chosen)) if chosen else float("nan")

    def others_refusals_ms(self) -> tuple[float, float] | None:
        """The same of ordinary clients, who have one request at a time on a connection."""
        took = [
            1000 * (each.done_s - each.sent_s)
            for each in self.ledger.outcomes
            if each.told in self.situation.tolerated
        ]
        return (float(np.median(took)), float(np.percentile(took, 99))) if took else None

    @property
    def refused(self) -> int:
        """Requests of ordinary clients refused for want of room, as promised."""
        return sum(self.ledger.counts()[name] for name in self.situation.tolerated)


async def besieged(scene: Scene, traffic: Traffic, situation: Situation, rate: float) -> Siege:
    """Try one situation.

    Args:
        rate: requests a second that are served at most, which `overload` multiplies.
    """
    ledger = Ledger(situation.tolerated)
    stop = asyncio.Event()
    rest_mib = scene.resident_mib()
    defects = scene.defects()
    with Peak(scene) as peak:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(traffic.run(ledger, stop))
            await asyncio.sleep(_BEFORE_S)
            ledger.begun_s = time.monotonic()
            told = await _attack(scene, situation, rate)
            ledger.healed_s = time.monotonic()
            await until(lambda: ledger.recovered_s is not None, _RECOVERS_S)
            await asyncio.sleep(_AFTER_S)
            stop.set()
            await sending
    slow = told["refusals_ms"]
    return Siege(
        situation,
        ledger,
        told["counts"],
        None if slow is None else (slow[0], slow[1]),
        rest_mib,
        peak.mib,
        scene.resident_mib(),
        peak.descriptors,
        scene.defects() - defects + (not scene.is_running()),
    )


async def capacity(traffic: Traffic, seconds: float) -> float:
    """Requests a second that are served with two dozen outstanding."""
    served = 0
    end_s = time.monotonic() + seconds

    async def one(client: int) -> None:
        nonlocal served
        while time.monotonic() < end_s:
            outcome = await traffic.ask(client % 8)
            served += outcome.told in _RIGHT

    async with asyncio.TaskGroup() as group:
        for client in range(24):
            group.create_task(one(client))
    return served / seconds


async def _attack(scene: Scene, situation: Situation, rate: float) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests.overload.attacker", situation.attack, scene.address),
        *(str(situation.seconds), "--rate", str(situation.overload * rate)),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(situation.seconds + _ENDS_S):
            out, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"the attacker ({situation.attack}) ended with {process.returncode}")
    told: dict[str, object] = json.loads(out.splitlines()[-1])
    return told
