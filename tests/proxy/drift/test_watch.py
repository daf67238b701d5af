"""Drift of real traffic through a real pipeline: seen, acted upon, and over again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from proxy.config import Model
from proxy.defences import Defences
from proxy.drift.population import Population
from proxy.drift.state import State
from proxy.flow import Action
from proxy.metrics import Metrics
from tests.defended import Opener
from tests.images import tampered
from tests.proxy.drift.monitored import (
    COUNT,
    MODEL,
    Monitored,
    dark,
    monitored,
    ordinary,
)

pytestmark = pytest.mark.triton

ODD = tampered(ordinary(50, 8))


async def drifting(m: Monitored) -> None:
    """Raise the alarm."""
    await m.fill(dark(1))
    await m.fill(dark(2))
    assert m.population.state.is_drifting


async def action_on(m: Monitored, principal: str = "somebody") -> Action:
    """What is done with a request that anybody would call odd."""
    await m.send(ODD, principal=principal)
    return m.pipeline.flow.action


async def test_traffic_like_the_calibration_is_calm(opened: Opener) -> None:
    async with monitored(opened) as m:
        for seed in range(6):
            await m.fill(ordinary(seed))
        assert not m.population.state.is_drifting
        assert m.metric("drift_alarm", model=MODEL) == 0
        assert m.metric("drift_samples", model=MODEL, window="count") > 100
        assert m.pipeline.metric("calibration_stale", reason="drift") == 0


async def test_an_alarm_is_told_and_ends_when_the_traffic_is_as_before(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "proxy.drift.telling")
    async with monitored(opened, drift={"clear_after": 2}) as m:
        await m.fill(ordinary(0))
        await drifting(m)
        assert m.metric("drift_alarm", model=MODEL) == 1
        assert m.metric("drift_distance", signal="score/residual", window="count") > 0.5
        assert m.metric("drift_p_value", signal="score/residual", window="count") < 1e-6
        assert m.metric("blocking_suspended", model=MODEL) == 0, "nothing was asked for"
        assert m.pipeline.metric("calibration_stale", model=MODEL, reason="drift") == 1
        for seed in range(3):  # the first still has dark ones in it, the second is the first calm
            assert m.population.state.is_drifting
            await m.fill(ordinary(seed))
        assert not m.population.state.is_drifting
        assert m.metric("drift_alarm", model=MODEL) == 0
        assert m.pipeline.metric("calibration_stale", model=MODEL, reason="drift") == 0
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "has drifted from its calibration" in told[0]
    assert "like its calibration again" in told[1]


async def test_verdicts_are_not_changed_by_what_the_population_does(opened: Opener) -> None:
    drift = {"on_alarm": "suspend"}
    async with monitored(opened, action="block", drift=drift) as m:
        assert await action_on(m) is Action.BLOCK
        before = m.pipeline.flow.samples
        await drifting(m)
        assert await action_on(m) is Action.FLAG
        assert m.pipeline.flow.samples == before


async def test_suspended_blocking_is_counted_and_bounded_in_time(opened: Opener) -> None:
    drift = {"on_alarm": "suspend", "max_suspend_hours": 12}
    async with monitored(opened, action="block", drift=drift) as m:
        await drifting(m)
        assert m.metric("blocking_suspended", model=MODEL) == 1
        before = m.metric("drift_withheld_actions_total", model=MODEL, action="block")
        assert await action_on(m) is Action.FLAG
        after = m.metric("drift_withheld_actions_total", model=MODEL, action="block")
        assert after == before + 1
        await m.look(hours=10)
        assert await action_on(m) is Action.FLAG
        await m.look(hours=1)
        assert m.population.state.is_drifting
        assert m.metric("blocking_suspended", model=MODEL) == 0
        assert await action_on(m) is Action.BLOCK


async def test_few_principals_raise_an_alarm_but_do_not_switch_blocking_off(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "proxy.drift.telling")
    async with monitored(opened, action="block", drift={"on_alarm": "suspend"}) as m:
        for seed in range(1, 6):  # in the first half nobody knows yet how many there are
            for i, part in enumerate(np.array_split(dark(seed), 25)):
                await m.send(part, principal=f"client-{i % 10}")
            await m.look()
        assert m.metric("drift_alarm", model=MODEL) == 1
        assert m.pipeline.metric("calibration_stale", model=MODEL, reason="drift") == 1
        assert m.metric("blocking_suspended", model=MODEL) == 0
        assert m.metric("drift_withheld_actions_total", model=MODEL, action="suspend") == 1
        assert "fewer than 40 principals" in m.watch.shown()[MODEL]["withheld"]
        assert await action_on(m) is Action.BLOCK
    told = [each.getMessage() for each in caplog.records if "has drifted" in each.getMessage()]
    assert len(told) == 1
    assert "suspend is withheld" in told[0]


async def test_an_operator_ends_it(opened: Opener) -> None:
    async with monitored(opened, action="block", drift={"on_alarm": "suspend"}) as m:
        await drifting(m)
        assert m.watch.acknowledge("another") == []
        assert m.watch.acknowledge(MODEL) == [MODEL]
        assert m.watch.acknowledge(None) == [], "there is nothing left to take note of"
        assert await action_on(m) is Action.BLOCK
        await m.fill(dark(3))
        assert m.population.state.is_drifting
        assert await action_on(m) is Action.BLOCK, "the same drift is known"
        shown = m.watch.shown()[MODEL]
        assert (shown["drifting"], shown["acknowledged"], shown["response"]) == (True, True, "none")


async def test_purifying_is_suspended_too(opened: Opener) -> None:
    async with monitored(opened, action="purify", drift={"on_alarm": "suspend"}) as m:
        assert await action_on(m) is Action.PURIFY
        await drifting(m)
        assert await action_on(m) is Action.FLAG


async def test_widened_only_the_most_suspicious_are_acted_on(opened: Opener) -> None:
    drift = {"on_alarm": "widen", "widen_to": 4}
    async with monitored(opened, action="block", fpr=0.2, drift=drift) as m:
        await drifting(m)
        scorer = m.pipeline.defences.find(MODEL).scorer
        assert scorer is not None
        acted = {}
        for shade, image in zip(np.linspace(0.2, 1, 100), ordinary(7, 100), strict=True):
            image = (shade * image).astype(np.float32)
            await m.send(image[None], principal="somebody")
            (sample,) = m.pipeline.flow.samples
            if sample.score > sample.threshold:
                wide = scorer.wider(sample.threshold)
                assert wide > sample.threshold
                assert m.pipeline.flow.action is (
                    Action.BLOCK if sample.score > wide else Action.FLAG
                )
                acted[m.pipeline.flow.action] = True
        assert set(acted) == {Action.BLOCK, Action.FLAG}, "there were both"


async def test_many_like_frames_of_one_client_are_no_drift(opened: Opener) -> None:
    async with monitored(opened) as m:
        frame = dark(9, 1)
        for seed in range(4):
            mixed = ordinary(seed)
            for start in range(0, len(mixed), 40):
                await m.send(mixed[start : start + 24], size=2)
                await m.send(np.repeat(frame, 16, axis=0), principal="camera")
            await m.look()
        assert m.population.state.looks["count"].samples > 50, "there was enough to tell by"
        assert not m.population.state.is_drifting


async def test_an_alarm_by_a_series_of_queries_is_no_part_of_the_population(
    opened: Opener,
) -> None:
    async with monitored(opened) as m:
        await m.send(ordinary(0, 8))
        m.pipeline.flow.quarantined = True
        await m.look()
        assert m.population.counts == {"taken": 0, "attack": 8, "full": 0}
        assert m.metric("drift_left_out_samples_total", reason="attack") == 8


async def reloaded(m: Monitored, **fields: Any) -> Population | None:
    """The model's traffic after a reload of its policy with these fields."""
    config = m.pipeline.defences.config
    other = Model.model_validate({**config.models[MODEL].model_dump(), **fields})
    fresh = Defences(
        config.model_copy(update={"models": {MODEL: other}}), Metrics(CollectorRegistry())
    )
    fresh.learn_from(m.pipeline.defences)
    await fresh.refresh(m.pipeline.upstream)
    m.watch.follow(fresh)
    return fresh.find(MODEL).population


async def test_windows_go_on_through_a_reload_unless_they_are_of_something_else(
    opened: Opener,
) -> None:
    async with monitored(opened) as m:
        await m.fill(ordinary(0))
        old = m.population
        drift = old.settings.model_dump()
        kept = await reloaded(m, drift={**drift, "on_alarm": "suspend"})
        assert kept is old
        assert kept.settings.on_alarm == "suspend"
        assert await reloaded(m, fpr=0.3) is not old, "other scores are suspicious"
        assert await reloaded(m, cascade={}) is not old, "dear detectors see the doubtful only"
        windows = {**drift["windows"], "count": 2 * COUNT}
        assert await reloaded(m, drift={**drift, "windows": windows}) is not old


@contextlib.asynccontextmanager
async def in_the_middle_of_a_tick(m: Monitored) -> AsyncIterator[None]:
    """While inside, a tick is judging; it ends afterwards."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop, judged = asyncio.get_running_loop(), m.population.judged

    def slowly(*given: Any) -> State:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(10)
        return judged(*given)

    m.population.judged = slowly  # type: ignore[method-assign]
    ticking = asyncio.ensure_future(m.watch.tick())
    await begun.wait()
    try:
        yield
    finally:
        go_on.set()
        await ticking


async def test_an_operators_word_during_a_look_stays(opened: Opener) -> None:
    async with monitored(opened, action="block", drift={"on_alarm": "suspend"}) as m:
        await drifting(m)
        async with in_the_middle_of_a_tick(m):
            assert m.watch.acknowledge(None) == [MODEL]
        assert m.population.state.acknowledged
        assert await action_on(m) is Action.BLOCK


async def test_a_model_that_goes_during_a_look_leaves_nothing_behind(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    async with monitored(opened, action="block", drift={"on_alarm": "suspend"}) as m:
        await drifting(m)
        assert m.metric("blocking_suspended", model=MODEL) == 1
        async with in_the_middle_of_a_tick(m):
            assert await reloaded(m, drift={"enabled": False}) is None
        await m.watch.tick()
        assert m.metric("drift_alarm", model=MODEL) == 0
        assert m.metric("blocking_suspended", model=MODEL) == 0
        assert m.watch.shown() == {}
    assert [each for each in caplog.records if each.exc_info] == []


async def test_a_worker_that_knows_a_model_only_by_name_forgets_nothing_about_it(
    opened: Opener,
) -> None:
    async with monitored(opened) as m:
        held = {MODEL: m.population.state.to_json(), "gone": m.population.state.to_json()}
        defence = m.pipeline.defences.find(MODEL)
        defence.scorer = None  # Triton has not described it yet
        m.watch.follow(m.pipeline.defences)
        assert await m.watch.looked([], held) == {MODEL: held[MODEL]}


async def test_a_model_that_is_not_watched_has_no_population(opened: Opener) -> None:
    async with monitored(opened, drift={"enabled": False}) as m:
        await m.send(ordinary(0, 8))
        assert m.pipeline.defences.find(MODEL).population is None
        assert m.pipeline.flow.statistics is None
        assert m.watch.shown() == {}
