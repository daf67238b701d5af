"""Requests that meet on the device: they share passes, and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.errors import DetectorFailed, InvalidTensor
from proxy.upstream import Answer
from tests.defended import Opener, each
from tests.images import CLEAN, MIXED, request
from tests.moody import marked

pytestmark = pytest.mark.triton


async def test_a_raising_detector_harms_no_batch_mate(
    opened: Opener, moody: dict[str, Any]
) -> None:
    async with opened({"digits_like": {**moody, "on_failure": "closed"}}) as d:
        with d.busy_device():
            tasks = [
                asyncio.ensure_future(d.infer(request("digits_like", x)))
                for x in (CLEAN[:1], marked(1), CLEAN[1:3])
            ]
            await d.queued()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(o) for o in outcomes] == [Answer, DetectorFailed, Answer]


async def test_a_bad_tensor_harms_no_batch_mate(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        with d.busy_device():
            tasks = [
                asyncio.ensure_future(d.infer(request("digits_like", x)))
                for x in (CLEAN, CLEAN * 255, MIXED)
            ]
            await d.queued()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(o) for o in outcomes] == [Answer, InvalidTensor, Answer]
        assert each(d.flows[2].samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.metric("batch_size_count") < 6  # they did share passes


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_busy_device_is_waited_for_no_longer_than_the_budget(
    opened: Opener, on_failure: str
) -> None:
    fields = {"budget_ms": 5, "on_failure": on_failure}
    async with opened({"digits_like_fp16": fields}) as d:
        with d.busy_device():
            await d.queued()  # before the request
            work = d.infer(request("digits_like_fp16", MIXED))
            if on_failure == "closed":
                with pytest.raises(DetectorFailed, match="budget"):
                    await work
            else:
                await work
        assert d.flow.failure == "budget"
        assert d.metric("fail_open_total", reason="budget") == (on_failure == "open")


async def test_a_client_that_leaves_while_queued(opened: Opener) -> None:
    async with opened({"digits_like": {"dispatch": "sequential"}}) as d:
        with d.busy_device():
            stays = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
            leaves = asyncio.ensure_future(d.infer(request("digits_like", MIXED)))
            await d.queued()
            leaves.cancel()
            await asyncio.wait({leaves})
        await stays
        assert leaves.cancelled()
        assert [flow.outcome for flow in d.flows] == ["ok", "cancelled"]
        assert len(d.upstream.sent["client"]) == 1


async def test_what_is_quick_is_judged_while_the_device_thread_sleeps(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify"}}) as d:
        await d.infer(request("digits_like", MIXED))
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.metric("batch_size_count") == 2  # looked at, and purified: judged elsewhere


async def test_what_is_quick_joins_the_others_where_it_is_awake(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        d.upstream.held = {"client"}
        task = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
        await d.upstream.expect("own")
        with d.busy_device():
            await d.queued()
            d.upstream.release()
            assert await asyncio.wait({task}, timeout=0.1) == (set(), {task})
        await task
        assert d.metric("batch_size_count") == 3  # looked at, held, judged
