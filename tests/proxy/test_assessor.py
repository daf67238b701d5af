"""Verdicts and what is done about them, failures included."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from proxy.errors import Blocked, DetectorFailed, InvalidTensor, Overloaded
from proxy.flow import Action, Verdict
from proxy.pb import open_inference_pb2 as pb
from purifiers import Median
from tests.builders import infer_request
from tests.defended import Opener, each
from tests.images import CLEAN, MIXED, as_file, files_of, images_of, request
from tests.moody import marked

pytestmark = pytest.mark.triton


async def test_flag_passes_and_records(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "flag"}}) as d:
        message = request("digits_like", MIXED).SerializeToString()
        await d.infer(message)
        assert d.upstream.sent["client"] == [message]
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.metric("samples_total", verdict="suspicious") == 1
        assert d.metric("detector_p_value_count", detector="residual") == 4
        (line,) = d.audit()
        assert (line["model"], line["action"], line["principal"]) == (
            "digits_like",
            "flag",
            "tester",
        )


@pytest.mark.parametrize(
    ("model", "typed"),
    [
        ("digits_like", False),
        ("digits_like", True),
        ("digits_like_probabilities", False),
        ("digits_like_nhwc_uint8", False),
        ("digits_like_fp16", False),
    ],
)
async def test_purify_changes_the_suspicious_samples_only(
    opened: Opener, model: str, typed: bool
) -> None:
    async with opened({model: {"action": "purify"}}) as d:
        message = request(model, MIXED, typed=typed)
        await d.infer(message)
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        assert d.flow.action is Action.PURIFY
        sent = pb.ModelInferRequest.FromString(d.upstream.sent["client"][-1])
        if typed:
            assert not sent.raw_input_contents
            values = np.array(sent.inputs[0].contents.fp32_contents, np.float32)
            after, before = values.reshape(MIXED.shape), MIXED
        else:
            after = images_of(model, d.upstream.sent["client"][-1])
            before = images_of(model, message.SerializeToString())
        assert [i for i in range(4) if not np.array_equal(after[i], before[i])] == [1]
        expected = Median(3).purify(torch.from_numpy(MIXED[1:2])).numpy()[0]
        found = after[1].transpose(2, 0, 1) / 255 if model.endswith("uint8") else after[1]
        assert np.abs(found - expected).max() < 1 / 400
        # Nothing else of the message is different.
        message.ClearField("raw_input_contents")
        sent.ClearField("raw_input_contents")
        for item in (message.inputs[0], sent.inputs[0]):
            item.ClearField("contents")
        assert sent == message


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_purified_files_are_spliced_in_and_keep_their_format(
    opened: Opener, kind: str
) -> None:
    files = [as_file(image, kind) for image in MIXED]
    message = infer_request(
        {"image": np.array([[f] for f in files], np.object_)}, model="encoded", request_id="client"
    )
    async with opened({"encoded": {"action": "purify", "dispatch": "sequential"}}) as d:
        await d.infer(message)
        assert each(d.flow.samples) == ["pass", "suspicious", "pass", "pass"]
        (sent,) = d.upstream.sent["client"]
        after = files_of(sent)
        assert [i for i in range(4) if after[i] != files[i]] == [1]
        picture = Image.open(io.BytesIO(after[1]))
        assert (picture.format, picture.size) == (kind, (32, 32))
        expected = Median(3).purify(torch.from_numpy(MIXED[1:2])).numpy()[0].transpose(1, 2, 0)
        error = np.abs(np.asarray(picture) / 255 - expected)
        assert error.mean() < (0.05 if kind == "JPEG" else 0.01)


async def test_an_unreadable_file_is_refused(opened: Opener) -> None:
    files = np.array([[as_file(CLEAN[0])], [b"GIF89a"]], np.object_)
    async with opened({"encoded": {}}) as d:
        with pytest.raises(InvalidTensor, match="not a readable"):
            await d.infer(infer_request({"image": files}, model="encoded"))
        assert d.upstream.sent["client"] == []


async def test_block_refuses_the_whole_request(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "block"}}) as d:
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED))
        assert d.flow.action is Action.BLOCK
        assert d.metric("requests_total", action="block", outcome="blocked") == 1
        assert len(d.audit()) == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
@pytest.mark.parametrize(
    ("x", "reason"), [(marked(1), "error"), (marked(0), "non_finite")], ids=["raises", "nan"]
)
async def test_a_detector_that_fails(
    opened: Opener, moody: dict[str, Any], x: np.ndarray, reason: str, on_failure: str
) -> None:
    fields = {**moody, "on_failure": on_failure, "dispatch": "sequential"}
    async with opened({"digits_like": fields}) as d:
        message = request("digits_like", x).SerializeToString()
        if on_failure == "open":
            await d.infer(message)
            assert d.upstream.sent["client"] == [message]
        else:
            with pytest.raises(DetectorFailed) as failure:
                await d.infer(message)
            assert failure.value.reason == reason
            assert d.upstream.sent["client"] == []
        assert d.flow.verdict is Verdict.FAILED
        assert d.flow.failure == reason
        assert d.metric("detector_failures_total", reason=reason) == 1
        assert d.metric("fail_open_total", reason=reason) == (on_failure == "open")
        assert d.metric("samples_total", verdict="failed") == 1
        assert d.audit()[0]["failure"] == reason


@pytest.mark.parametrize("action", ["purify", "block"])
async def test_a_sample_without_a_verdict_carries_no_other_through(
    opened: Opener, moody: dict[str, Any], action: str
) -> None:
    batch = np.concatenate([marked(0), MIXED[1:2]])
    async with opened({"digits_like": {**moody, "action": action}}) as d:
        work = d.infer(request("digits_like", batch))
        if action == "block":
            with pytest.raises(Blocked):
                await work
        else:
            await work
            after = images_of("digits_like", d.upstream.sent["client"][-1])
            assert np.array_equal(after[0], batch[0])
            assert not np.array_equal(after[1], batch[1])
        assert each(d.flow.samples) == ["failed", "suspicious"]
        assert d.metric("fail_open_total", reason="non_finite") == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_purifying_late_is_a_failure_too(opened: Opener, on_failure: str) -> None:
    # The chain is long enough that the budget ends inside it.
    chain = tuple({"name": "median", "params": {"size": 3}} for _ in range(2000))
    fields = {"action": "purify", "purifiers": chain, "budget_ms": 60, "on_failure": on_failure}
    async with opened({"digits_like_fp16": fields}) as d:
        message = request("digits_like_fp16", MIXED).SerializeToString()
        if on_failure == "open":
            await d.infer(message)
            assert d.upstream.sent["client"] == [message]
            assert d.flow.action is Action.FLAG
        else:
            with pytest.raises(DetectorFailed, match="budget"):
                await d.infer(message)
        assert d.metric("detector_failures_total", reason="budget") == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_no_room_in_the_queue(opened: Opener, on_failure: str) -> None:
    async with opened({"digits_like": {"on_failure": on_failure}}, capacity=0) as d:
        work = d.infer(request("digits_like", MIXED))
        if on_failure == "closed":
            with pytest.raises(Overloaded):
                await work
        else:
            await work
        assert d.metric("detector_failures_total", reason="overloaded") == 1


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_model_that_cannot_be_scored_yet(opened: Opener, on_failure: str) -> None:
    async with opened({"digits_like": {"on_failure": on_failure}}, refresh=False) as d:
        work = d.infer(request("digits_like", MIXED))
        if on_failure == "closed":
            with pytest.raises(DetectorFailed) as failure:
                await work
            assert failure.value.reason == "not_ready"
        else:
            await work
        assert d.metric("detector_failures_total", reason="not_ready") == 1
