"""Suspicious samples answered from several purified copies, through the real Triton."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from proxy.errors import UpstreamError, UpstreamUnavailable
from proxy.flow import Action
from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Answer
from tests.builders import set_parameter
from tests.defended import Defended, Opener, each, stream_message
from tests.images import CLEAN, MIXED, images_of, request

pytestmark = pytest.mark.triton

AGGREGATE: dict[str, Any] = {
    "action": "purify",
    "purifiers": [{"name": "noise", "params": {"sigma": 40}}],
    "aggregate": {"copies": 4},
}
WEIGHTS = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4")


def logits(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the models answer to (B, 3, 32, 32)."""
    return (x.reshape(len(x), -1) - 0.5) @ WEIGHTS


def softmax(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    odds = np.exp(rows.astype("f8") - rows.max(-1, keepdims=True))
    share: NDArray[np.float64] = odds / odds.sum(-1, keepdims=True)
    return share


def rows_of(answer: Answer) -> NDArray[np.float32]:
    response = pb.ModelInferResponse.FromString(answer.data)
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(-1, 10)


def sent(d: Defended, model: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The purified request, and the copies asked about last."""
    return (
        images_of(model, d.upstream.sent["client"][-1]),
        images_of(model, d.upstream.sent["own"][-1]),
    )


@pytest.mark.parametrize("rule", ["mean", "vote"])
async def test_only_the_suspicious_row_is_written_anew(opened: Opener, rule: str) -> None:
    fields = {**AGGREGATE, "aggregate": {"copies": 4, "rule": rule}}
    async with opened({"digits_like": fields}) as d:
        answer = await d.infer(request("digits_like", MIXED))
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.flow.action is Action.PURIFY
        purified, copies = sent(d, "digits_like")
        assert len(copies) == 3
        found, plain = rows_of(answer), logits(purified)
        others = [0, 2, 3]
        np.testing.assert_allclose(found[others], plain[others], rtol=1e-3, atol=1e-3)
        answers = softmax(np.concatenate([plain[1:2], logits(copies)]))
        expected = answers.mean(0)
        if rule == "vote":
            votes = np.bincount(answers.argmax(1), minlength=10)
            expected = (votes + answers.mean(0)) / 5
        np.testing.assert_allclose(softmax(found[1:2])[0], expected, rtol=1e-3, atol=1e-5)
        assert not np.allclose(found[1], plain[1], atol=1e-2)
        assert d.metric("aggregations_total", result="served") == 1
        assert d.metric("aggregations_total") == 1


async def test_probabilities_are_answered_with_probabilities(opened: Opener) -> None:
    async with opened({"digits_like_probabilities": AGGREGATE}) as d:
        answer = await d.infer(request("digits_like_probabilities", MIXED))
        purified, copies = sent(d, "digits_like_probabilities")
        answers = softmax(np.concatenate([logits(purified)[1:2], logits(copies)]))
        np.testing.assert_allclose(rows_of(answer)[1], answers.mean(0), rtol=1e-3, atol=1e-6)


async def test_a_clean_request_is_not_asked_about_again(opened: Opener) -> None:
    async with opened({"digits_like_fp16": AGGREGATE}) as d:
        await d.infer(request("digits_like_fp16", CLEAN))
        assert d.upstream.sent["own"] == []
        assert d.metric("aggregations_total") == 0


@pytest.mark.parametrize("how", ["classification", "stream"])
async def test_what_cannot_be_aggregated_is_purified_all_the_same(opened: Opener, how: str) -> None:
    message = request("digits_like_fp16", MIXED, outputs=["logits"])
    if how == "classification":
        set_parameter(message.outputs[0].parameters, "classification", 2)
    async with opened({"digits_like_fp16": AGGREGATE}) as d:
        if how == "stream":
            after = await stream_message(d, message)
        else:
            await d.infer(message)
            after = d.upstream.sent["client"][-1]
        x = images_of("digits_like_fp16", after)
        before = images_of("digits_like_fp16", message.SerializeToString())
        assert [i for i in range(4) if not np.array_equal(x[i], before[i])] == [1]
        assert d.upstream.sent["own"] == []
        result = "hidden" if how == "classification" else how
        assert d.metric("aggregations_total", result=result) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [("failing", "error"), ("blank", "error"), ("held", "budget")],
)
async def test_copies_that_are_not_answered_leave_the_plain_answer(
    opened: Opener, change: str, reason: str
) -> None:
    fields = {**AGGREGATE, "budget_ms": 500 if change == "held" else 10_000}
    async with opened({"digits_like_fp16": fields}) as d:
        if change == "failing":
            d.upstream.failing["own"] = UpstreamUnavailable("gone")
        else:
            getattr(d.upstream, change).add("own")
        answer = await d.infer(request("digits_like_fp16", MIXED))
        purified = images_of("digits_like_fp16", d.upstream.sent["client"][-1])
        expected = logits(purified.astype("f4"))
        np.testing.assert_allclose(rows_of(answer), expected, rtol=1e-2, atol=1e-2)
        reason = "no_evidence" if change == "blank" else reason
        assert d.metric("aggregations_total", result=reason) == 1
        assert d.flow.failure == ""
        d.upstream.release()


async def test_an_error_of_the_purified_request_is_the_clients(opened: Opener) -> None:
    async with opened({"digits_like_fp16": AGGREGATE}) as d:
        d.upstream.failing["client"] = UpstreamError(13, "broken", ())
        with pytest.raises(UpstreamError, match="broken"):
            await d.infer(request("digits_like_fp16", MIXED))
        assert d.metric("aggregations_total") == 0
