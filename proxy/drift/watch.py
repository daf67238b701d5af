"""The traffic of all models: taken in every few seconds, looked at, and acted upon.

One process looks at its own traffic. Workers show theirs (`exports`), one of them looks at all of
it together (`looked`), and all of them are told what was found out (`adopt`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectors.rule import Cascade
from proxy.defence import Defence
from proxy.defences import Defences
from proxy.drift import telling
from proxy.drift.gauges import DriftMetrics
from proxy.drift.population import Export, Population, Subject
from proxy.drift.settings import Drift
from proxy.drift.signals import STATISTICS, comparable
from proxy.drift.state import State

TICK_S = 2.0

log = logging.getLogger(__name__)


class Watch:
    """Watches every model that has a calibration and is not told not to.

    Args:
        metrics: told all there is to publish.
        key: of the blocks, equal in all workers.
        decides: act by one's own looks; False in a worker, which is told what to think.
        now: Unix time.
    """

    def __init__(
        self,
        metrics: DriftMetrics,
        *,
        key: bytes,
        decides: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._key = key
        self._decides = decides
        self._now = now
        self._populations: dict[str, Population] = {}
        self._defences: dict[str, Defence] = {}
        self._exports: dict[str, Export] = {}
        self._expected: set[str] = set()
        """Models that will be watched once their model server has described them."""
        self._one_at_a_time = asyncio.Lock()

    def follow(self, defences: Defences) -> None:
        """Watch the models as they are defended now; windows go on where nothing has changed."""
        before, self._populations = self._populations, {}
        self._expected = set()
        for defence in defences.models():
            name, model = defence.name, defence.model
            if model is None or not model.drift.enabled or not defence.scorer:
                defence.population = None
                if model is not None and model.drift.enabled and model.detectors:
                    self._expected.add(name)
                continue
            versions = "" if defence.spec is None else ",".join(defence.spec.versions)
            rule = f"{model.fpr:g} {model.cascade}"
            subject = Subject(name, defences.digest(name), versions, rule)
            known = before.get(name)
            if known is None or not _continues(known, subject, model.drift):
                known = self._begun(defences, defence, subject)
            known.settings = model.drift
            defence.population = self._populations[name] = known
            self._defences[name] = defence
        for gone in before.keys() - self._populations.keys():
            self._blank(before[gone])

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            # A loop that ended here would leave the last state standing for good.
            except Exception:
                log.exception("cannot tell whether the traffic drifts")

    async def tick(self) -> None:
        """Take in what has come, and look at it where that is this process's to do."""
        async with self._one_at_a_time:
            for name, population in list(self._populations.items()):
                try:
                    await self._take_in(name, population, self._now())
                # One model's error must not take the others' look.
                except Exception:
                    log.exception("model %s: cannot tell whether its traffic drifts", name)

    async def _take_in(self, name: str, population: Population, now_s: float) -> None:
        """One model's part of a tick; nothing where it is not watched any more at the end."""
        export = await asyncio.to_thread(population.export, population.take(), now_s)
        before = population.state
        after = before
        if self._decides:
            after = await asyncio.to_thread(population.judged, [export], before, now_s)
        if self._populations.get(name) is not population:
            return
        self._exports[name] = export
        if population.state.acknowledged and not before.acknowledged:
            after = after.acknowledge()  # said in the meantime
        self._adopt(population, after if self._decides else population.state, tell=self._decides)

    # -- several workers ---------------------------------------------------------------------------

    async def exports(self) -> dict[str, Any]:
        """What this worker has seen: `Export.to_json` by model."""
        exports = {name: self._exports.get(name) for name in self._populations}
        known = {name: each for name, each in exports.items() if each is not None}
        return await asyncio.to_thread(
            lambda: {name: export.to_json() for name, export in known.items()}
        )

    async def looked(
        self, others: Sequence[Mapping[str, Any]], states: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What is to be held, by model, after a look at this worker's traffic and the others'.

        Args:
            others: `exports` of each.
            states: what was held, `State.to_json` by model.
        """
        # Of what this worker has seen nothing yet, what was held stands.
        known = self._populations.keys() | self._expected
        found = {name: states[name] for name in known & states.keys()}
        async with self._one_at_a_time:
            for name, population in list(self._populations.items()):
                own = self._exports.get(name)
                if own is None:
                    continue
                there = [each[name] for each in others if name in each]
                before = _state(states.get(name), name)
                after = await asyncio.to_thread(
                    _judged, population, own, there, before, self._now()
                )
                if self._populations.get(name) is population:
                    telling.tell(population, before, after)
                    found[name] = after.to_json()
                else:  # it went in the meantime
                    found.pop(name, None)
        return found

    def adopt(self, states: Mapping[str, Any]) -> None:
        """Act by what another worker has found out: `State.to_json` by model."""
        for name, population in self._populations.items():
            if name in states:
                self._adopt(population, _state(states[name], name), tell=False)

    # -- operators ---------------------------------------------------------------------------------

    def shown(self) -> dict[str, Any]:
        """What is held of each model, ready for JSON."""
        return {
            name: {
                **population.state.to_json(),
                **{"drifting": population.state.is_drifting, "response": population.response},
                "withheld": telling.withheld(population, population.state),
                "samples": dict(population.counts),
            }
            for name, population in self._populations.items()
        }

    def acknowledge(self, model: str | None) -> list[str]:
        """Do as ever about a drift that is known, of one model or all; returns which there were."""
        found = []
        for name, population in self._populations.items():
            state = population.state
            if model in (None, name) and state.is_drifting and not state.acknowledged:
                self._adopt(population, state.acknowledge(), tell=False)
                log.warning("model %s: its drift was acknowledged: `action` is in force", name)
                found.append(name)
        return found

    # -- parts -------------------------------------------------------------------------------------

    def _adopt(self, population: Population, state: State, *, tell: bool) -> None:
        name = population.subject.model
        if tell:
            telling.tell(population, population.state, state)
        population.adopt(state, self._now())
        self._defences[name].metrics.calibration_stale("drift", population.state.is_drifting)

    def _begun(self, defences: Defences, defence: Defence, subject: Subject) -> Population:
        assert defence.model is not None  # noqa: S101 (its caller looked)
        assert defence.scorer is not None  # noqa: S101
        stops = defence.model.cascade
        cascade = None if stops is None else Cascade(stops.clean, stops.suspicious)
        whole = defences.reference(defence.name)
        reference = comparable(whole, defence.scorer.detectors, cascade)
        self._exports.pop(defence.name, None)
        return Population(
            subject,
            defence.model.drift,
            reference,
            statistics=STATISTICS[defence.model.kind],
            metrics=self._metrics,
            key=self._key,
            now=self._now,
        )

    def _blank(self, population: Population) -> None:
        self._exports.pop(population.subject.model, None)
        self._defences.pop(population.subject.model, None)
        population.end()


def _continues(known: Population, subject: Subject, settings: Drift) -> bool:
    return known.subject == subject and known.settings.windows == settings.windows


def _judged(
    population: Population,
    own: Export,
    others: Sequence[Mapping[str, Any]],
    state: State,
    now_s: float,
) -> State:
    exports = [own]
    for each in others:
        try:
            exports.append(population.restored(each))
        except ValueError as error:  # it has just been given another calibration, or is going
            log.debug("model %s: a worker's windows are left out: %s", population.subject, error)
    return population.judged(exports, state, now_s)


def _state(facts: Any, model: str) -> State:
    try:
        return State() if facts is None else State.from_json(facts)
    except ValueError as error:
        log.warning("model %s: %s", model, error)
        return State()
