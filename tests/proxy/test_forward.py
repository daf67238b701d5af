"""The call to Triton: when it is made, how often, and what ends it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from proxy.errors import Blocked, UpstreamError
from tests.defended import Opener, eventually
from tests.images import CLEAN, MIXED, images_of, output_of, request

pytestmark = pytest.mark.triton


async def test_sequential_input_only_blocks_before_the_model_sees_anything(opened: Opener) -> None:
    async with opened({"digits_like_fp16": {"action": "block", "dispatch": "sequential"}}) as d:
        with pytest.raises(Blocked):
            await d.infer(request("digits_like_fp16", MIXED))
        assert d.upstream.sent == {"client": [], "own": []}


async def test_sequential_input_only_purifies_before_the_model_sees_anything(
    opened: Opener,
) -> None:
    async with opened({"digits_like_fp16": {"action": "purify", "dispatch": "sequential"}}) as d:
        await d.infer(request("digits_like_fp16", MIXED))
        assert len(d.upstream.sent["client"]) == 1


async def test_speculative_asks_at_once_and_lets_the_call_end_on_block(opened: Opener) -> None:
    fields = {"digits_like_fp16": {"action": "block", "dispatch": "speculative"}}
    async with opened(fields, upstream_cancels_per_second=0) as d:
        d.upstream.held = {"client"}
        with pytest.raises(Blocked):
            await d.infer(request("digits_like_fp16", MIXED))
        await asyncio.sleep(0)
        assert len(d.upstream.sent["client"]) == 1
        seconds = d.flow.stage_s.get("upstream")
        d.upstream.release()
        await eventually(lambda: not len(d.pipeline._tasks))
        assert d.upstream.cancelled == []
        assert d.flow.stage_s.get("upstream") == seconds  # the flow has been recorded


async def test_speculative_drops_the_answer_to_what_was_purified(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify", "dispatch": "speculative"}}) as d:
        message = request("digits_like", MIXED).SerializeToString()
        answer = await d.infer(message)
        first, second = d.upstream.sent["client"]
        assert first == message
        fresh = await d.upstream.call(
            "/inference.GRPCInferenceService/ModelInfer", second, timeout_s=5
        )
        assert np.array_equal(output_of(answer), output_of(fresh))


async def test_the_clients_own_call_is_the_last_one_made_in_its_place(opened: Opener) -> None:
    # A detector looks at the answer to the client's own message, which is then purified.
    async with opened({"digits_like": {"action": "purify", "dispatch": "sequential"}}) as d:
        await d.infer(request("digits_like", MIXED))
        assert len(d.upstream.sent["client"]) == 2
        assert 0 < d.flow.waited_s < d.flow.stage_s["upstream"]
        assert d.metric("added_seconds_count", model="digits_like") == 1


async def test_a_client_that_leaves_has_waited_for_the_model(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        d.upstream.held = {"client"}
        leaves = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
        await d.upstream.expect("client")
        leaves.cancel()
        await asyncio.wait({leaves})
        assert d.flow.waited_s > 0
        d.upstream.release()


async def test_observing_adds_nothing_for_what_is_scored_beside_the_traffic(
    opened: Opener,
) -> None:
    async with opened({"digits_like": {"mode": "observe"}}) as d:
        await d.infer(request("digits_like", CLEAN))
        assert d.flow.waited_s == d.flow.stage_s["upstream"] > 0
        await eventually(lambda: d.metric("stage_seconds_count", stage="score") == 1)
        assert d.metric("added_seconds_count", model="digits_like") == 1


async def test_a_purified_sequence_reaches_the_model_once(opened: Opener) -> None:
    async with opened({"sequence_sum": {"action": "purify"}}) as d:
        both = {"sequence_id": 10, "sequence_start": True, "sequence_end": True}
        await d.infer(request("sequence_sum", MIXED[1:2], parameters=both))
        (sent,) = d.upstream.sent["client"]
        assert not np.array_equal(images_of("sequence_sum", sent), MIXED[1])


async def test_the_models_own_error_reaches_the_client(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        d.upstream.failing["client"] = UpstreamError(3, "no")
        with pytest.raises(UpstreamError, match="no"):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("upstream_errors_total", code="INVALID_ARGUMENT") == 1
        assert d.flow.samples == ()


@pytest.mark.parametrize("kind", ["client", "own"])
@pytest.mark.parametrize("dispatch", ["sequential", "speculative"])
async def test_a_client_that_leaves_while_the_model_works(
    opened: Opener, kind: str, dispatch: str
) -> None:
    async with opened({"digits_like": {"dispatch": dispatch}}) as d:
        d.upstream.held = {kind}
        stays = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
        leaves = asyncio.ensure_future(d.infer(request("digits_like", MIXED)))
        await d.upstream.expect(kind, 2)
        leaves.cancel()
        await asyncio.wait({leaves})
        d.upstream.release()
        await stays
        assert leaves.cancelled()
        # What the client asked for ends with it; a question of our own runs to its end.
        assert d.upstream.cancelled.count(kind) == (1 if kind == "client" else 0)
