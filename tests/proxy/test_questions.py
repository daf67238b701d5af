"""What is asked about a request, what is done without, and what a verdict is worth then."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from proxy.breaker import FAILURES
from proxy.errors import (
    Blocked,
    DeadlineExceeded,
    DetectorFailed,
    UpstreamError,
    UpstreamUnavailable,
)
from proxy.flow import Verdict
from proxy.questions import classes_of
from tests.builders import set_parameter
from tests.defended import ALL_FOUR, Opener, each, p_values
from tests.images import CLEAN, MIXED, request
from tests.moody import marked

pytestmark = pytest.mark.triton

WITHOUT_VIEWS = ALL_FOUR - {"feature_squeezing"}


async def test_without_its_copies_a_request_can_still_be_suspicious(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "block"}}) as d:
        d.upstream.failing["own"] = UpstreamUnavailable("gone")
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED))
        assert p_values(d.flow) == WITHOUT_VIEWS
        assert each(d.flow.samples) == ["failed", "suspicious", "failed", "failed"]
        assert {sample.reason for sample in d.flow.samples} >= {"error"}
        assert d.metric("fail_open_total", reason="error") == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_without_its_copies_no_request_is_clean(opened: Opener, on_failure: str) -> None:
    async with opened({"digits_like": {"on_failure": on_failure}}) as d:
        d.upstream.failing["own"] = UpstreamUnavailable("gone")
        work = d.infer(request("digits_like", CLEAN))
        if on_failure == "open":
            await work
        else:
            with pytest.raises(DetectorFailed):
                await work
        assert each(d.flow.samples) == ["failed"] * 4
        assert d.flow.failure == "error"


async def test_a_detector_whose_copies_go_unanswered_is_left_out_and_comes_back(
    opened: Opener,
) -> None:
    async with opened({"digits_like": {}}) as d:
        d.upstream.failing["own"] = UpstreamError(14, "not now")
        for _ in range(FAILURES):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("detector_circuit_opened_total", detector="feature_squeezing") == 1
        asked = len(d.upstream.sent["own"])
        await d.infer(request("digits_like", CLEAN))
        assert len(d.upstream.sent["own"]) == asked, "nothing is asked for it"
        assert d.flow.failure == "circuit_open"
        del d.upstream.failing["own"]
        async with asyncio.timeout(20):
            while d.metric("detector_circuit_open", detector="feature_squeezing"):
                await d.infer(request("digits_like", MIXED))
                await asyncio.sleep(0.05)
        await d.infer(request("digits_like", MIXED))
        assert p_values(d.flow) == ALL_FOUR
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]


@pytest.mark.parametrize("error", [UpstreamError(3, "no such parameter"), UpstreamUnavailable("")])
async def test_what_befalls_the_clients_own_call_too_opens_nothing(
    opened: Opener, error: Exception
) -> None:
    async with opened({"digits_like": {}}) as d:
        d.upstream.failing["own"] = error
        for _ in range(2 * FAILURES):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("detector_circuit_opened_total") == 0
        assert d.flow.failure == "error"


async def test_copies_that_will_be_late_are_not_asked_about(opened: Opener) -> None:
    async with opened({"digits_like": {"budget_ms": 150, "action": "block"}}) as d:
        d.upstream.held = {"own"}
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED))
        assert p_values(d.flow) == WITHOUT_VIEWS
        asked = 0
        while not d.metric("stages_skipped_total", stage="views"):
            asked = len(d.upstream.sent["own"])
            with pytest.raises(Blocked):
                await d.infer(request("digits_like", MIXED))
            assert asked < 30
        assert len(d.upstream.sent["own"]) == asked
        assert {s.reason for s in d.flow.samples if s.verdict is Verdict.FAILED} == {"budget"}
        d.upstream.release()


async def test_no_deadline_of_the_clients_buys_a_pass(opened: Opener) -> None:
    async with opened({"digits_like": {"budget_ms": 5000, "on_failure": "open"}}) as d:
        d.upstream.held = {"own"}
        with pytest.raises(DeadlineExceeded):
            await d.infer(request("digits_like", CLEAN), timeout_s=0.3)
        assert d.metric("fail_open_total") == 0
        d.upstream.release()


async def test_a_detector_that_raises_is_left_out_and_the_others_judge(
    opened: Opener, moody: dict[str, Any]
) -> None:
    async with opened({"digits_like": {**moody, "action": "block", "on_failure": "open"}}) as d:
        for _ in range(FAILURES):
            await d.infer(request("digits_like", marked(1)))
            assert d.flow.failure == "error"
        assert d.metric("detector_circuit_open", detector="moody") == 1
        outcomes = []
        async with asyncio.timeout(20):
            while d.metric("requests_total", outcome="blocked") == 0:  # rules are being made
                (outcome,) = await asyncio.gather(
                    d.infer(request("digits_like", MIXED)), return_exceptions=True
                )
                outcomes.append(type(outcome))
                await asyncio.sleep(0.02)
        assert outcomes[-1] is Blocked
        assert p_values(d.flow) == {"residual"}
        assert each(d.flow.samples) == ["failed", "suspicious", "failed", "failed"]


async def test_one_bad_input_now_and_then_opens_nothing(
    opened: Opener, moody: dict[str, Any]
) -> None:
    async with opened({"digits_like": {**moody, "on_failure": "open"}}) as d:
        for _ in range(2):
            await d.infer(request("digits_like", marked(1)))
            for _ in range(10):
                await d.infer(request("digits_like", CLEAN[:1]))
        assert d.metric("detector_circuit_opened_total") == 0
        assert np.isfinite(d.flow.samples[0].score)


async def test_what_a_client_asks_for_in_vain_is_held_against_no_detector(opened: Opener) -> None:
    async with opened({"digits_like": {}}) as d:
        message = request("digits_like", CLEAN)
        message.model_version = "99"
        set_parameter(message.outputs.add(name="logits").parameters, "classification", 3)
        for _ in range(2 * FAILURES):
            with pytest.raises(UpstreamError):
                await d.infer(message)
        assert d.metric("detector_circuit_opened_total") == 0


async def test_many_slow_copies_of_one_client_are_held_against_no_detector(opened: Opener) -> None:
    async with opened({"digits_like": {"budget_ms": 60}}) as d:
        d.upstream.held = {"own"}
        for _ in range(2 * FAILURES):
            await d.infer(request("digits_like", CLEAN))
        assert d.metric("detector_circuit_opened_total") == 0
        d.upstream.release()


async def test_who_asks_nothing_does_not_wait_for_others_answers(opened: Opener) -> None:
    fields = {"budget_ms": 100, "cascade": {"clean": 0.9, "suspicious": 0.5}}
    async with opened({"digits_like": {}, "digits_like_fp16": fields}) as d:
        d.upstream.held = {"own"}
        hidden = request("digits_like", CLEAN)
        set_parameter(hidden.outputs.add(name="logits").parameters, "classification", 3)
        await asyncio.gather(*(d.infer(hidden) for _ in range(20)))
        await d.infer(request("digits_like_fp16", CLEAN))
        assert d.flow.failure == ""
        d.upstream.release()


def test_the_class_of_each_sample_that_was_asked_about() -> None:
    nan = np.nan
    output = np.array([[0.1, 0.9], [nan, nan], [3.0, -1.0]], np.float32)
    assert classes_of(output).tolist() == [1, -1, 0]
    assert classes_of(np.zeros((0, 2), np.float32)).tolist() == []
