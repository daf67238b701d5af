"""The traffic of several workers as one: a worker looks at all of it, and all act alike.

The supervisor passes on what is held and understands none of it but for an operator's word: it
must not load what the workers compute with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.drift.endpoints import LOOK, PATH, STATE
from proxy.drift.siblings import LOOK_S, ask
from proxy.drift.state import State

TICK_S = 5.0

log = logging.getLogger(__name__)


class DriftWorkers:
    """Has one worker look, and tells all.

    Args:
        sockets: where each worker's admin listener is, or will be again.
    """

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = sockets
        self._states: dict[str, Any] = {}
        self._acknowledged: set[str] = set()
        """Models of which an operator spoke while a worker was looking."""
        self._sees = False
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """Have the first worker that answers look at the traffic of all; tell all what it found."""
        async with self._one_at_a_time:
            for i, socket in enumerate(self._sockets):
                others = [str(each) for j, each in enumerate(self._sockets) if j != i]
                body = {"sockets": others, "states": self._states}
                self._acknowledged.clear()
                found = await ask(socket, "POST", LOOK, body, limit_s=LOOK_S)
                if found is not None:
                    self._hold(found)
                    await self._told()
                    return
            if self._sees:
                log.warning("no worker looked at the drift of the traffic: what was held stands")
                self._sees = False

    def _hold(self, found: Mapping[str, Any]) -> None:
        """What a worker found, of the models that it watches; others are watched no more."""
        self._sees = True
        self._states = dict(found)
        for name in self._acknowledged & found.keys():
            self._states[name] = State.from_json(found[name]).acknowledge().to_json()

    async def shown(self) -> Mapping[str, Any]:
        """What is held of each model; samples as counted by all workers."""
        answers = await asyncio.gather(*(ask(each, "GET", PATH) for each in self._sockets))
        whole: dict[str, Any] = {}
        for answer in answers:
            for model, facts in (answer or {}).items():
                known = whole.setdefault(model, {**facts, "samples": {}})["samples"]
                for kind, count in facts["samples"].items():
                    known[kind] = known.get(kind, 0) + count
        return whole

    async def acknowledge(self, model: str | None) -> list[str]:
        """Note an operator's word on a model's drift or all, and tell all workers."""
        found = []
        for name, facts in self._states.items():  # without waiting for a look that may take long
            state = State.from_json(facts)
            if model in (None, name) and state.is_drifting and not state.acknowledged:
                self._states[name] = state.acknowledge().to_json()
                self._acknowledged.add(name)
                log.warning("model %s: its drift was acknowledged: `action` is in force", name)
                found.append(name)
        await self._told()
        return found

    async def _told(self) -> None:
        await asyncio.gather(*(ask(each, "POST", STATE, self._states) for each in self._sockets))
