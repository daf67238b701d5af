"""Void calls: ended within the limit, counted once, given up when dear, and never served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from proxy import dispatch
from proxy.errors import Blocked, UpstreamError
from proxy.pb import open_inference_pb2 as pb
from proxy.tasks import MOST_LET_GO
from tests.defended import Defended, Opener, eventually, settings_of
from tests.images import CLEAN, MIXED, benign, request, tampered
from tests.proxy.running import ask, running
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

INPUT_ONLY = "digits_like_fp16"
ANSWER_WANTED = "digits_like"
WEIGHTS = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4")
"""Those of the test models that classify."""


async def blocked(d: Defended, model: str = INPUT_ONLY) -> None:
    with pytest.raises(Blocked):
        await d.infer(request(model, MIXED))


async def test_speculation_is_the_default(opened: Opener) -> None:
    async with opened({INPUT_ONLY: {"action": "block"}}) as d:
        assert d.metric("dispatch_speculative", model=INPUT_ONLY) == 1
        await blocked(d)
        assert len(d.upstream.sent["client"]) == 1


@pytest.mark.parametrize(("rate", "reason"), [(0, "ran"), (10, "cancelled")])
async def test_a_blocked_call_ends_within_the_limit_and_is_counted_once(
    opened: Opener, rate: float, reason: str
) -> None:
    fields = {INPUT_ONLY: {"action": "block"}}
    async with opened(fields, upstream_cancels_per_second=rate) as d:
        d.upstream.held = {"client"}
        await blocked(d)
        d.upstream.release()
        await eventually(lambda: not len(d.pipeline._tasks))
        assert d.upstream.cancelled == (["client"] if reason == "cancelled" else [])
        assert d.metric("upstream_wasted_total") == 1
        assert d.metric("upstream_wasted_total", reason=reason) == 1
        assert d.metric("upstream_wasted_seconds_total", model=INPUT_ONLY) > 0


async def test_a_purified_request_replaces_the_clients_own(opened: Opener) -> None:
    async with opened({INPUT_ONLY: {"action": "purify"}}) as d:
        d.upstream.held = {"client"}
        answer = asyncio.ensure_future(d.infer(request(INPUT_ONLY, MIXED)))
        await d.upstream.expect("client", 2)
        d.upstream.release()
        await answer
        assert d.upstream.cancelled == ["client"]
        assert d.metric("upstream_wasted_total", reason="cancelled") == 1


async def test_a_served_answer_is_not_wasted(opened: Opener) -> None:
    async with opened({INPUT_ONLY: {"action": "flag"}}) as d:
        await d.infer(request(INPUT_ONLY, MIXED))
        d.upstream.failing["client"] = UpstreamError(3, "no")
        with pytest.raises(UpstreamError):
            await d.infer(request(INPUT_ONLY, CLEAN))
        assert d.metric("upstream_wasted_total") == 0
        assert d.defences.find(INPUT_ONLY).governor.share == 0


@pytest.mark.parametrize("rate", [0, 10])
async def test_clients_that_leave_are_limited_alike(opened: Opener, rate: float) -> None:
    async with opened({ANSWER_WANTED: {}}, upstream_cancels_per_second=rate) as d:
        d.upstream.held = {"client"}
        message = request(ANSWER_WANTED, CLEAN)
        calls = [asyncio.ensure_future(d.infer(message)) for _ in range(30)]
        await d.upstream.expect("client", len(calls))
        await d.queued()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await d.queued()
        assert all(call.cancelled() for call in calls)
        assert len(d.upstream.cancelled) in ([0] if rate == 0 else [10, 11])
        d.upstream.release()
        await eventually(lambda: not len(d.pipeline._tasks))
        assert d.metric("upstream_wasted_total") == 0


async def test_calls_that_run_on_unheard_stay_bounded(opened: Opener) -> None:
    fields = {INPUT_ONLY: {"action": "block", "max_waste": 1.0}}
    async with opened(fields, upstream_cancels_per_second=0) as d:
        d.upstream.held = {"client"}
        for _ in range(MOST_LET_GO + 3):
            await blocked(d)
        # The last ones waited for their verdict, and were never sent.
        assert len(d.upstream.sent["client"]) == len(d.pipeline._tasks) == MOST_LET_GO
        assert d.upstream.cancelled == []
        d.upstream.release()


async def test_it_falls_back_when_waste_is_dear_and_returns(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "DWELL_S", 0.0)
    async with opened({INPUT_ONLY: {"action": "block", "max_waste": 0.1}}) as d:
        while d.defences.find(INPUT_ONLY).governor.is_speculative:
            await blocked(d)
        sent = len(d.upstream.sent["client"])
        assert sent >= dispatch.LEAST
        assert d.metric("dispatch_speculative", model=INPUT_ONLY) == 0
        await blocked(d)
        assert len(d.upstream.sent["client"]) == sent  # what it would have wasted is still known
        while not d.defences.find(INPUT_ONLY).governor.is_speculative:
            await d.infer(request(INPUT_ONLY, CLEAN))
        assert d.metric("dispatch_speculative", model=INPUT_ONLY) == 1
        await blocked(d)
        await eventually(lambda: not len(d.pipeline._tasks))
        assert d.metric("upstream_wasted_total") == sent + 1


async def test_a_call_that_is_evidence_is_wasted_but_not_needless(opened: Opener) -> None:
    async with opened({ANSWER_WANTED: {"action": "block"}}) as d:
        await blocked(d, ANSWER_WANTED)
        await eventually(lambda: d.metric("upstream_wasted_total", reason="ran") == 1)
        assert d.defences.find(ANSWER_WANTED).governor.share == 0


def logits_of(x: NDArray[np.float32]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = (x.reshape(len(x), -1) - 0.5) @ WEIGHTS
    return logits


@pytest.mark.parametrize("action", ["block", "purify"])
@pytest.mark.parametrize("rate", [0, 1e6])
async def test_nobody_gets_another_answer_than_its_own(
    triton: EmbeddedTriton, calibrations: Path, action: str, rate: float
) -> None:
    models = settings_of(calibrations, {INPUT_ONLY: {"action": action, "max_waste": 1.0}})
    images = benign(192, seed=5)
    images[::4] = tampered(images[::4])
    queue = list(range(len(images)))
    async with running(
        triton.grpc_address, models=models, upstream_cancels_per_second=rate
    ) as front:
        flagged = 0

        async def client() -> None:
            nonlocal flagged
            while queue:
                i = queue.pop()
                x = images[i : i + 1]
                reply = await ask(front.channel, "ModelInfer", request(INPUT_ONLY, x))
                if reply.code is grpc.StatusCode.UNAVAILABLE:
                    flagged += 1
                    continue
                response = pb.ModelInferResponse.FromString(reply.data)
                logits = np.frombuffer(response.raw_output_contents[0], np.float32)
                own = np.allclose(logits, logits_of(x)[0], atol=0.05)
                flagged += not own
                assert own or (i % 4 == 0 and action == "purify")

        await asyncio.gather(*(client() for _ in range(32)))
        wasted = await front.metric("upstream_wasted_total", model=INPUT_ONLY)
        assert len(images) // 4 <= flagged <= len(images) // 3
        assert wasted == flagged
