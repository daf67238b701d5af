"""Several workers as one population: one looks at all of it, all act alike, some die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxy.drift.endpoints import WorkerPages, routes
from proxy.drift.population import Population
from proxy.drift.state import State
from proxy.drift.workers import DriftWorkers
from tests.proxy.drift.monitored import HOUR_S, Clock
from tests.proxy.drift.samples import flow, population
from tests.proxy.drift.test_siblings import worker

SETTINGS = {
    **{"windows": {"count": 400, "minutes": 10_080}, "false_alarm_days": 1},
    **{"on_alarm": "suspend", "clear_after": 1},
}


@dataclass
class Seat:
    """A worker with the traffic of one model, as its listener shows it."""

    own: Population
    clock: Clock

    async def exports(self) -> dict[str, Any]:
        export = self.own.export(self.own.take(), self.clock.now_s)
        return {"model": export.to_json()}

    async def looked(
        self, others: Sequence[Mapping[str, Any]], states: Mapping[str, Any]
    ) -> dict[str, Any]:
        exports = [self.own.export(self.own.take(), self.clock.now_s)]
        exports += [self.own.restored(each["model"]) for each in others]
        before = State.from_json(states["model"]) if states else State()
        return {"model": self.own.judged(exports, before, self.clock.now_s).to_json()}

    def adopt(self, states: Mapping[str, Any]) -> None:
        self.own.adopt(State.from_json(states["model"]), self.clock.now_s)

    async def drift(self) -> Mapping[str, Any]:
        facts = {**self.own.state.to_json(), "response": self.own.response}
        return {"model": {**facts, "samples": dict(self.own.counts)}}

    async def acknowledge(self, model: str | None) -> Sequence[str]:
        raise AssertionError("the supervisor keeps what is held")


@dataclass
class Crew:
    """Workers at their sockets, and the supervisor's side of it."""

    seats: list[Seat]
    supervisor: DriftWorkers
    clock: Clock
    stacks: list[AsyncExitStack]

    def send(self, seed: int, **facts: float) -> None:
        """Half a window at each worker, by 90 clients of its own."""
        rng = np.random.default_rng(seed)
        for at, seat in enumerate(self.seats):
            for i in range(100):
                seat.own.add(flow(rng, f"client-{at}-{i % 90}", 2, **facts))  # type: ignore[arg-type]

    async def look(self) -> list[str]:
        """Let an hour pass, look, and tell what each worker does then."""
        self.clock.now_s += HOUR_S
        await self.supervisor.tick()
        return [seat.own.response for seat in self.seats]


@asynccontextmanager
async def crew(folder: Path, workers: int = 2) -> AsyncIterator[Crew]:
    clock = Clock()
    sockets = [folder / f"worker-{i}.sock" for i in range(workers)]
    found = Crew([], DriftWorkers(sockets), clock, [])
    for socket in sockets:
        seat = Seat(population(clock, SETTINGS), clock)
        pages = WorkerPages(lambda seat=seat: seat)  # type: ignore[misc]
        stack = AsyncExitStack()
        await stack.enter_async_context(worker(socket, *pages.routes(), *routes(seat)))
        found.seats.append(seat)
        found.stacks.append(stack)
    try:
        yield found
    finally:
        for stack in found.stacks:
            await stack.aclose()


async def test_all_act_alike_on_what_none_could_have_seen_alone(tmp_path: Path) -> None:
    async with crew(tmp_path) as c:
        c.send(0)
        assert await c.look() == ["none", "none"]
        c.send(1, shift=2.0)
        c.send(2, shift=2.0)
        assert await c.look() == ["suspend", "suspend"]
        shown = await c.supervisor.shown()
        assert shown["model"]["response"] == "suspend"
        assert shown["model"]["samples"]["taken"] == 3 * 400
        for seed in (3, 4):
            c.send(seed)
        assert await c.look() == ["none", "none"]


async def test_an_operators_word_reaches_all_and_stays(tmp_path: Path) -> None:
    async with crew(tmp_path) as c:
        c.send(1, shift=2.0)
        assert await c.look() == ["suspend", "suspend"]
        assert await c.supervisor.acknowledge("another") == []
        assert await c.supervisor.acknowledge(None) == ["model"]
        assert [seat.own.response for seat in c.seats] == ["none", "none"]
        c.send(2, shift=2.0)
        assert await c.look() == ["none", "none"]
        assert await c.supervisor.acknowledge("model") == []


async def test_what_is_held_outlives_the_worker_that_looked(tmp_path: Path) -> None:
    async with crew(tmp_path, workers=3) as c:
        c.send(1, shift=2.0)
        assert await c.look() == ["suspend"] * 3
        await c.stacks[0].aclose()
        assert await c.look() == ["suspend"] * 3
        assert c.seats[1].own.state.is_drifting
        for stack in c.stacks[1:]:
            await stack.aclose()
        await c.look()
        assert await c.supervisor.shown() == {}


async def test_a_word_said_during_a_look_is_not_forgotten(tmp_path: Path) -> None:
    async with crew(tmp_path) as c:
        c.send(1, shift=2.0)
        assert await c.look() == ["suspend", "suspend"]
        seat, begun, go_on = c.seats[0], asyncio.Event(), asyncio.Event()
        looked = seat.looked

        async def slowly(*said: Any) -> dict[str, Any]:
            begun.set()
            await go_on.wait()
            return await looked(*said)

        seat.looked = slowly  # type: ignore[method-assign]
        looking = asyncio.ensure_future(c.supervisor.tick())
        await begun.wait()
        async with asyncio.timeout(5):
            assert await c.supervisor.acknowledge(None) == ["model"]
        go_on.set()
        await looking
        assert [each.own.response for each in c.seats] == ["none", "none"]


async def test_a_worker_that_hangs_takes_the_look_from_nobody(tmp_path: Path) -> None:
    async with crew(tmp_path) as c:
        hung = tmp_path / "worker-9.sock"

        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()  # until whoever asked gives up
            writer.close()

        async with await asyncio.start_unix_server(silence, hung):
            sockets = [tmp_path / f"worker-{i}.sock" for i in range(2)]
            c.supervisor = DriftWorkers([*sockets, hung])
            c.send(1, shift=2.0)
            assert await c.look() == ["suspend", "suspend"]


async def test_what_is_not_watched_any_more_is_forgotten(tmp_path: Path) -> None:
    async with crew(tmp_path) as c:
        c.send(1, shift=2.0)
        assert await c.look() == ["suspend", "suspend"]

        async def nothing(*said: Any) -> dict[str, Any]:
            return {}

        watched = c.seats[0].looked
        c.seats[0].looked = nothing  # type: ignore[method-assign]
        await c.supervisor.tick()
        c.seats[0].looked = watched  # type: ignore[method-assign]
        c.seats[0].own = population(c.clock, SETTINGS)  # begun anew
        c.seats[1].own = population(c.clock, SETTINGS)
        assert await c.look() == ["none", "none"]
        assert await c.supervisor.acknowledge(None) == []


async def test_a_look_that_nobody_takes_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with crew(tmp_path) as c:
        await c.look()
        for stack in c.stacks:
            await stack.aclose()
        for _ in range(3):
            await c.look()
    assert [each.getMessage() for each in caplog.records].count(
        "no worker looked at the drift of the traffic: what was held stands"
    ) == 1


async def test_workers_that_watch_nothing(tmp_path: Path) -> None:
    async with worker(tmp_path / "w.sock", *WorkerPages(lambda: None).routes()):
        supervisor = DriftWorkers([tmp_path / "w.sock"])
        await supervisor.tick()
        assert await supervisor.acknowledge(None) == []
