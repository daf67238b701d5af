"""Drift over HTTP: what operators ask of the admin port, and the supervisor of its workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from proxy.drift import siblings

PATH = "/drift"
SKETCH, LOOK, STATE = f"{PATH}/sketch", f"{PATH}/look", f"{PATH}/state"

USAGE = """\
whose drift is acknowledged? Say one of:
  POST /drift/acknowledge?model=NAME   this model's
  POST /drift/acknowledge?all=1        every model's
"""


class DriftTarget(Protocol):
    """Where drift is watched: one proxy, or a supervisor with its workers."""

    async def drift(self) -> Mapping[str, Any]:
        """Return what is held of each model's traffic: `Watch.shown`."""

    async def acknowledge(self, model: str | None) -> Sequence[str]:
        """Do as ever about a drift that is known, of a model or all (None); return which."""


class DriftWorker(Protocol):
    """A worker's `Watch`."""

    async def exports(self) -> dict[str, Any]:
        """Return what this worker has seen."""

    async def looked(
        self, others: Sequence[Mapping[str, Any]], states: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what is to be held after a look at this worker's traffic and the others'."""

    def adopt(self, states: Mapping[str, Any]) -> None:
        """Act by what was found out."""


def routes(target: DriftTarget) -> list[web.RouteDef]:
    """What operators ask."""

    async def shown(_: web.Request) -> web.Response:
        return _json(await target.drift())

    async def acknowledge(request: web.Request) -> web.Response:
        query = dict(request.query)
        model, every = query.pop("model", None), query.pop("all", None)
        if query or (model is None) == (every is None) or every not in (None, "1"):
            return web.Response(text=USAGE, status=400)
        return _json({"acknowledged": list(await target.acknowledge(model))})

    return [
        web.get(PATH, shown, allow_head=False),
        web.post(f"{PATH}/acknowledge", acknowledge),
    ]


class WorkerPages:
    """What a worker's own admin listener serves besides, to its supervisor and siblings alone.

    Args:
        worker: the watch in force; None while no model is watched.
    """

    def __init__(self, worker: Callable[[], DriftWorker | None]) -> None:
        self._worker = worker

    def routes(self) -> list[web.AbstractRouteDef]:
        """What to serve."""
        return [
            web.get(SKETCH, self._sketch, allow_head=False),
            web.post(LOOK, self._post(self._look)),
            web.post(STATE, self._post(self._adopt)),
        ]

    def close(self) -> None:
        """Nothing is being followed."""

    async def _sketch(self, _: web.Request) -> web.Response:
        worker = self._worker()
        return _json({} if worker is None else await worker.exports())

    async def _look(self, worker: DriftWorker, said: Mapping[str, Any]) -> dict[str, Any]:
        sockets = [Path(each) for each in said["sockets"]]
        answers = await asyncio.gather(*(siblings.ask(each, "GET", SKETCH) for each in sockets))
        return await worker.looked([each for each in answers if each is not None], said["states"])

    async def _adopt(self, worker: DriftWorker, said: Mapping[str, Any]) -> dict[str, Any]:
        worker.adopt(said)
        return {}

    def _post(
        self, answer: Callable[[DriftWorker, Mapping[str, Any]], Awaitable[dict[str, Any]]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            worker = self._worker()
            if worker is None:  # not yet, or no model is scored: no word on what is held
                return web.Response(text="nothing is watched here\n", status=503)
            return _json(await answer(worker, await request.json()))

        return handle


def _json(value: Mapping[str, Any]) -> web.Response:
    return web.Response(text=json.dumps(value, indent=2) + "\n", content_type="application/json")
