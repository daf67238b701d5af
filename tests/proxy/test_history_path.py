"""A series of queries through the pipeline: recognised, answered as the policy says, forgiven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from proxy.errors import Blocked, Overloaded
from proxy.flow import Action
from tests.defended import Defended, defended
from tests.images import benign, output_of, request
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

MODEL = "digits_like_again"
STRANGERS = benign(12, seed=501)
ALARMED_BY = 6
"""Queries of a binary search after which there must have been an alarm."""


def binary_search(seed: int = 502, steps: int = 10) -> NDArray[np.float32]:
    """The queries of a search for the boundary between two images, (2 + steps, 3, 32, 32)."""
    near, far = benign(2, seed=seed)
    queries = [near, far]
    low, high = near, far
    for step in range(steps):
        middle = (low + high) / 2
        queries.append(middle)
        low, high = (middle, high) if step % 3 else (low, middle)
    return np.stack(queries).astype(np.float32)


@asynccontextmanager
async def watched(
    triton: EmbeddedTriton, calibrations: Path, folder: Path, **settings: Any
) -> AsyncIterator[Defended]:
    policy = {"fpr": 0.05, "action": "flag", **settings.pop("query_attacks", {})}
    model = {"query_attacks": policy, "fpr": 0.02, **settings.pop("model", {})}
    async with defended(
        triton.grpc_address, calibrations, folder, {MODEL: model}, **settings
    ) as subject:
        yield subject


async def ask(
    d: Defended, x: NDArray[np.float32], principal: str = "tester"
) -> NDArray[Any] | None:
    """The model's answer to one image; None where it was refused."""
    try:
        answer = await d.infer(request(MODEL, x[None]), principal=principal)
    except Blocked:
        return None
    return output_of(answer)[0]


async def alarms(d: Defended, images: NDArray[np.float32], principal: str = "tester") -> list[bool]:
    told = []
    for x in images:
        before = d.metric("history_alarms_total")
        await ask(d, x, principal)
        told.append(d.metric("history_alarms_total") > before)
    return told


async def test_a_search_raises_an_alarm_within_its_first_queries(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    async with watched(triton, calibrations, tmp_path) as d:
        told = await alarms(d, binary_search())
        assert any(told[:ALARMED_BY])
        assert d.flow.action is Action.FLAG
        (standing,) = d.history.standings()["principals"]
        assert standing["principal"] == "tester"
        assert standing["longest_chain"] >= 3
        line = d.audit()[-1]
        assert line["chain"] >= 3


async def test_strangers_and_retries_raise_none(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    async with watched(triton, calibrations, tmp_path) as d:
        assert not any(await alarms(d, STRANGERS))
        assert not any(await alarms(d, np.repeat(STRANGERS[:1], 30, axis=0)))
        assert d.history.standings()["remembered"] == len(STRANGERS)  # a retry is no new query


async def test_a_search_is_refused_and_its_principal_with_it_until_forgiven(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    async with watched(triton, calibrations, tmp_path, query_attacks={"action": "block"}) as d:
        answers = [await ask(d, x) for x in binary_search()]
        first = next(i for i, answer in enumerate(answers) if answer is None)
        assert first < ALARMED_BY
        assert all(answer is None for answer in answers[first:])
        assert await ask(d, STRANGERS[0]) is None
        assert d.flow.quarantined
        assert await ask(d, STRANGERS[1], principal="another") is not None
        assert await d.history.forget("tester", None) == 1
        assert await ask(d, STRANGERS[2]) is not None


async def test_each_query_of_another_principal_is_one_series_all_the_same(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    async with watched(triton, calibrations, tmp_path, query_attacks={"action": "block"}) as d:
        answers = [
            await ask(d, x, principal=f"sybil {i}") for i, x in enumerate(binary_search(steps=14))
        ]
        # Its first steps are too far apart to be linked by their looks alone.
        assert any(answer is None for answer in answers[:12])


async def test_a_decoy_keeps_the_class_the_series_began_with(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    policy = {"action": "decoy"}
    async with watched(triton, calibrations, tmp_path, query_attacks=policy) as d:
        images = binary_search(seed=504)
        classes, actions = [], []
        for x in images:
            answer = await ask(d, x)
            assert answer is not None
            classes.append(int(answer.argmax()))
            actions.append(d.flow.action)
        decoys = [c for c, action in zip(classes, actions, strict=True) if action is Action.DECOY]
        assert len(decoys) >= len(images) - ALARMED_BY
        series = classes[2]  # what the first step of the search, the first of the chain, was told
        assert set(decoys) <= {classes[0], classes[1], series}
        assert len(set(decoys)) == 1


async def test_queries_sent_at_once_find_each_other(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    base = benign(1, seed=506)[0]
    noise = np.random.default_rng(0).normal(0, 0.02, (12, *base.shape)).astype(np.float32)
    pairs = np.concatenate([np.stack((base + n, base - n)) for n in noise]).clip(0, 1)
    async with watched(triton, calibrations, tmp_path) as d:
        await asyncio.gather(*(ask(d, x) for x in pairs))
        assert d.metric("history_alarms_total") > 0


async def test_a_batch_holds_a_series_as_well_as_many_requests_do(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    base = benign(1, seed=507)[0]
    noise = np.random.default_rng(1).normal(0, 0.02, (6, *base.shape)).astype(np.float32)
    pairs = np.concatenate([np.stack((base + n, base - n)) for n in noise]).clip(0, 1)
    async with watched(triton, calibrations, tmp_path) as d:
        await d.infer(request(MODEL, pairs))
        assert d.metric("history_alarms_total") == 1
        assert not d.flow.samples[0].alarm
        assert d.flow.samples[-1].alarm


async def test_observing_notes_alarms_and_changes_nothing(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    settings = {"model": {"mode": "observe"}, "query_attacks": {"action": "block"}}
    async with watched(triton, calibrations, tmp_path, **settings) as d:
        for count, x in enumerate(binary_search(), start=1):
            assert await ask(d, x) is not None
            await d.observed(count)
        assert d.metric("history_alarms_total") > 0


async def test_a_principal_in_quarantine_gains_nothing_from_a_busy_device(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    settings = {"model": {"budget_ms": 500}, "query_attacks": {"action": "decoy"}}
    async with watched(triton, calibrations, tmp_path, **settings) as d:
        for x in binary_search():
            await ask(d, x)
        assert d.history.is_quarantined(MODEL, "tester")
        with d.busy_device():
            with pytest.raises(Overloaded):
                await ask(d, STRANGERS[0])
            assert await ask(d, STRANGERS[1], principal="another") is not None  # fails open
