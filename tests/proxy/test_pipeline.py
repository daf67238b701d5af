"""Requests from admission to finish, and what their callers see of the defence."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proxy.errors import Blocked, Draining, Overloaded, RpcRefused, UpstreamError
from proxy.flow import Action
from proxy.pb import open_inference_pb2 as pb
from tests.defended import ALL_FOUR, Opener, each, p_values, settings_of, stream_message
from tests.images import CLEAN, MIXED, output_of, request
from tests.proxy.running import Reply, ask, running
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("dispatch", ["sequential", "speculative"])
@pytest.mark.parametrize("action", ["flag", "purify", "block"])
async def test_clean_requests_pass_byte_for_byte(
    opened: Opener, dispatch: str, action: str
) -> None:
    async with opened({"digits_like": {"action": action, "dispatch": dispatch}}) as d:
        message = request("digits_like", CLEAN).SerializeToString()
        answer = await d.infer(message)
        assert each(d.flow.samples) == ["pass"] * 4
        assert p_values(d.flow) == ALL_FOUR
        assert d.flow.action is Action.NONE
        assert d.upstream.sent["client"] == [message]
        assert len(output_of(answer)) == 40
        assert d.metric("samples_total", verdict="pass") == 4
        assert d.metric("requests_total", action="none", outcome="ok") == 1
        assert d.audit() == []


async def test_streams_in_other_modes(opened: Opener) -> None:
    async with opened({"digits_like": {"mode": "observe", "action": "block"}}) as d:
        message = request("digits_like", MIXED)
        assert await stream_message(d, message) == message.SerializeToString()
        await d.observed(4)
        assert d.metric("samples_total", verdict="suspicious") == 1
        other = request("digits_like_fp16", MIXED)
        assert await stream_message(d, other) == other.SerializeToString()
        d.pipeline.finish(d.flow, "ok")
        assert d.metric("unscored_total", model="other", reason="unlisted_model") == 1


async def test_models_that_are_not_scored(opened: Opener) -> None:
    async with opened({"digits_like": {"detectors": ()}}) as d:
        for model in ("digits_like", "digits_like_fp16"):
            message = request(model, MIXED).SerializeToString()
            await d.infer(message)
            assert d.upstream.sent["client"][-1] == message
        assert d.metric("unscored_total", model="digits_like", reason="no_detectors") == 1
        assert d.metric("unscored_total", model="other", reason="unlisted_model") == 1


async def test_errors_for_models_that_are_not_scored_are_counted(opened: Opener) -> None:
    async with opened({}) as d:
        d.upstream.failing["client"] = UpstreamError(5, "no")
        with pytest.raises(UpstreamError):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("upstream_errors_total", model="other", code="NOT_FOUND") == 1


async def test_unlisted_models_can_be_refused(opened: Opener) -> None:
    async with opened({"digits_like": {}}, unlisted_models="refuse") as d:
        with pytest.raises(RpcRefused, match="not served here"):
            await d.infer(request("digits_like_fp16", CLEAN))


async def test_admission(opened: Opener) -> None:
    async with opened({}, max_in_flight=1) as d:
        d.pipeline.admit()
        assert not d.pipeline.idle.is_set()
        with pytest.raises(Overloaded):
            d.pipeline.admit()
        d.pipeline.release()
        assert d.pipeline.idle.is_set()
        d.pipeline.draining = True
        with pytest.raises(Draining):
            d.pipeline.admit()


@pytest.mark.parametrize(
    ("x", "mode", "told"),
    [(CLEAN, "enforce", "pass"), (MIXED, "enforce", "suspicious"), (MIXED, "observe", "unknown")],
)
async def test_annotations_only_where_wanted(
    opened: Opener, x: np.ndarray, mode: str, told: str
) -> None:
    async with opened(
        {"digits_like": {"annotate": True, "mode": mode}, "digits_like_fp16": {}}
    ) as d:
        await d.infer(request("digits_like", x))
        assert d.flow.annotations == (
            ("breakwater-verdict", told),
            ("breakwater-request-id", d.flow.request_id),
        )
        await d.infer(request("digits_like_fp16", x))
        assert d.flow.annotations == ()
        if mode == "observe":
            await d.observed(4)


async def test_times_are_noted_by_stage(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify"}}) as d:
        await d.infer(request("digits_like", MIXED))
        stages = {"read", "queue", "score", "views", "purify", "upstream", "total"}
        assert set(d.flow.stage_s) == stages
        assert all(seconds >= 0 for seconds in d.flow.stage_s.values())
        assert d.metric("detector_seconds_count", detector="feature_squeezing") == 1


@pytest.mark.parametrize("action", ["flag", "purify", "block"])
async def test_with_a_quantum_every_answer_takes_the_same(opened: Opener, action: str) -> None:
    quantum_s = 0.5
    settings = {"action": action, "answer_quantum_ms": 1000 * quantum_s}
    async with opened({"digits_like": settings}) as d:
        for x in (CLEAN, MIXED):
            with contextlib.suppress(Blocked):
                await d.infer(request("digits_like", x))
            assert quantum_s <= d.flow.stage_s["total"] < 2 * quantum_s
            assert d.flow.stage_s["pace"] > 0
        assert d.flow.outcome == ("blocked" if action == "block" else "ok")


async def test_messages_of_streams_are_sent_on_at_that_pace(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify", "answer_quantum_ms": 300}}) as d:
        for x in (CLEAN, MIXED):
            started = time.monotonic()
            await stream_message(d, request("digits_like", x))
            assert 0.3 <= time.monotonic() - started < 0.6


async def test_who_leaves_is_not_held(opened: Opener) -> None:
    async with opened({"digits_like": {"answer_quantum_ms": 10_000}}) as d:
        asked = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
        await d.upstream.expect_answer("client")
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await asked


def seen(reply: Reply) -> tuple[Any, ...]:
    """A reply without the values that differ between any two answers."""
    response = pb.ModelInferResponse.FromString(reply.data)
    response.ClearField("raw_output_contents")
    keys = [[key for key, _ in part] for part in (reply.initial, reply.trailing)]
    return reply.code, reply.details, response.SerializeToString(), keys


@pytest.mark.parametrize("action", ["flag", "purify"])
async def test_silent_by_default(triton: EmbeddedTriton, calibrations: Path, action: str) -> None:
    models = settings_of(calibrations, {"digits_like": {"action": action}})
    async with running(triton.grpc_address, models=models) as front:
        clean = await ask(front.channel, "ModelInfer", request("digits_like", CLEAN))
        flagged = await ask(front.channel, "ModelInfer", request("digits_like", MIXED))
        assert await front.metric("samples_total", verdict="suspicious") == 1
        assert seen(clean) == seen(flagged)
        assert not any("breakwater" in key for key, _ in (*flagged.initial, *flagged.trailing))


async def test_a_block_looks_like_a_missing_verdict(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    models = settings_of(calibrations, {"digits_like": {"action": "block", "on_failure": "closed"}})
    late = settings_of(calibrations, {"digits_like": {"on_failure": "closed", "budget_ms": 1e-3}})
    async with (
        running(triton.grpc_address, models=models) as front,
        running(triton.grpc_address, models=late) as hasty,
    ):
        blocked = await ask(front.channel, "ModelInfer", request("digits_like", MIXED))
        failed = await ask(hasty.channel, "ModelInfer", request("digits_like", CLEAN))
        assert blocked.code is grpc.StatusCode.UNAVAILABLE
        assert blocked == failed
        assert await front.metric("requests_total", outcome="blocked") == 1
        assert await hasty.metric("detector_failures_total", reason="budget") == 1


async def test_annotated_answers_and_no_borrowed_ones(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    models = settings_of(calibrations, {"digits_like": {"annotate": True, "action": "block"}})
    async with running(triton.grpc_address, models=models) as front:
        for x, verdict, code in (
            (CLEAN, "pass", grpc.StatusCode.OK),
            (MIXED, "suspicious", grpc.StatusCode.UNAVAILABLE),
        ):
            reply = await ask(
                front.channel,
                "ModelInfer",
                request("digits_like", x),
                metadata=(("breakwater-verdict", "mine"),),
            )
            told = [value for key, value in reply.trailing if key == "breakwater-verdict"]
            assert (told, reply.code) == ([verdict], code)
            assert len(dict(reply.trailing)["breakwater-request-id"]) == 32
