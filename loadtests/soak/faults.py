"""What is done to the sidecar and to its neighbours while it serves."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable

from loadtests.soak.stage import Stage
from loadtests.soak.subjects import Subject, unanswerable
from loadtests.soak.tally import LONGEST_S, WRONG, Tally, Window
from loadtests.soak.traffic import PURIFYING, REFUSING, Traffic

BURST = 40
"""Requests that are cancelled, or whose deadline passes, at a time."""
WHILE_AWAY_S = 2.0
"""How long Redis is gone."""
_CRASH_POLL_S = 0.2
_MARGIN_S = 1.0
_STREAK = 20
"""So many right answers in a row are a recovery."""

REFUSED = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"})
"""What bad input may be answered with."""


class Faults:
    """Injects one fault after the other; only those that take Triton away excuse errors."""

    def __init__(self, stage: Stage, traffic: Traffic, tally: Tally) -> None:
        self._stage = stage
        self._traffic = traffic
        self._tally = tally
        self._rng = random.Random(11)
        self._reloads = itertools.count()
        self._upstream = asyncio.Lock()
        self.injected: list[tuple[str, float]] = []
        """Name and time of each."""
        self.cycle: tuple[Callable[[], Awaitable[None]], ...] = (
            self.cancels,
            self.bad_input,
            self.upstream_killed,
            self.redis_restart,
            self.deadlines,
            self.reload,
            self.upstream_restart,
            self.bad_reload,
            self.redis_frozen,
        )

    async def run(self, every_s: float, until_s: float) -> None:
        """Inject the faults in turn; ends early enough for the last one to be recovered from."""
        for fault in itertools.cycle(self.cycle):
            await asyncio.sleep(every_s)
            if time.monotonic() > until_s - LONGEST_S:
                return
            self.injected.append((fault.__name__, time.monotonic()))
            await fault()

    async def watch(self) -> None:
        """Restart Triton when it crashes by itself, as 2.51 can after cancels (its issue 7368)."""
        while True:
            await asyncio.sleep(_CRASH_POLL_S)
            async with self._upstream:
                if self._stage.triton.has_crashed:
                    self.injected.append(("upstream_crash", time.monotonic()))
                    await self._without_upstream("upstream_crash", self._stage.triton.restart)

    # -- the neighbours ------------------------------------------------------------------------

    async def upstream_killed(self) -> None:
        """Triton is killed, and started again."""
        async with self._upstream:
            await self._without_upstream("upstream_killed", self._kill_and_start)

    async def upstream_restart(self) -> None:
        """Triton ends in an orderly way, and is started again."""
        async with self._upstream:
            await self._without_upstream("upstream_restart", self._stage.triton.restart)

    async def redis_restart(self) -> None:
        """Redis is killed, and comes back empty: requests go on with the local history."""
        self._stage.redis.kill()
        await asyncio.sleep(WHILE_AWAY_S)
        await asyncio.to_thread(self._stage.redis.start)

    async def redis_frozen(self) -> None:
        """Redis keeps its connections and answers nothing for a while."""
        self._stage.redis.freeze()
        try:
            await asyncio.sleep(WHILE_AWAY_S)
        finally:
            self._stage.redis.thaw()

    # -- the clients ---------------------------------------------------------------------------

    async def cancels(self) -> None:
        """Clients that go away, from at once to after the answer."""
        await self._burst("cancels", lambda s: {"cancel_s": s}, {"CANCELLED"})

    async def deadlines(self) -> None:
        """Clients in too much of a hurry."""
        # Where the deadline passes while Triton has the request, either side may end it first.
        expected = {"DEADLINE_EXCEEDED", "CANCELLED"}
        await self._burst("deadlines", lambda s: {"timeout_s": s}, expected)

    async def bad_input(self) -> None:
        """Everything that is no request."""
        for model in (PURIFYING, REFUSING):
            for what, message in unanswerable(model):
                status = await self._traffic.raw(message)
                told = "as expected" if status in REFUSED else f"{what}: {status}"
                self._tally.bursts["bad_input", told] += 1

    # -- the operator --------------------------------------------------------------------------

    async def reload(self) -> None:
        """A changed configuration: the defences are built anew under traffic."""
        self._stage.write(drain_seconds=20 + next(self._reloads) % 2)

    async def bad_reload(self) -> None:
        """A configuration that is none: the old one stays."""
        self._stage.write(models={PURIFYING: {"action": "no such action"}})
        await asyncio.sleep(WHILE_AWAY_S)
        self._stage.write()

    # ------------------------------------------------------------------------------------------

    def _kill_and_start(self) -> None:
        self._stage.triton.kill()
        self._stage.triton.start()

    async def _without_upstream(self, name: str, restart: Callable[[], None]) -> None:
        """A window from now until requests are answered again, and a margin after."""
        window = Window(name, time.monotonic())
        self._tally.windows.append(window)
        await asyncio.to_thread(restart)
        self._tally.restart_streak()
        while window.length_s < LONGEST_S and not window.recovered:
            await asyncio.sleep(0.05)
            window.recovered = self._tally.streak >= _STREAK
        await asyncio.sleep(_MARGIN_S)
        window.end_s = min(time.monotonic(), window.start_s + LONGEST_S)

    async def _burst(
        self, name: str, hurry: Callable[[float], dict[str, float]], expected: set[str]
    ) -> None:
        def one(subject: Subject) -> Awaitable[str]:
            model = self._rng.choice((PURIFYING, REFUSING))
            within_s = 10 ** self._rng.uniform(-4, -1.5)  # 0.1 to 30 ms
            return self._traffic.ask(model, subject, **hurry(within_s))

        pool = self._rng.sample(list(self._traffic.pool), BURST)
        started_s = time.monotonic()
        outcomes = await asyncio.gather(*(one(subject) for subject in pool))
        excused = self._tally.is_excused(started_s, time.monotonic())
        for outcome in outcomes:
            fine = outcome in expected or outcome in ("served", "purified", "refused")
            told = "as expected" if fine or (excused and outcome != WRONG) else outcome
            self._tally.bursts[name, told] += 1
