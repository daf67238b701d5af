"""Which requests belong to a sequence, and what in them is looked at."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from proxy.errors import Blocked, DetectorFailed, InvalidTensor, SharedMemoryRefused, UpstreamError
from proxy.flow import Action, Flow
from tests.builders import infer_request, set_parameter
from tests.defended import Opener, p_values
from tests.images import CLEAN, MIXED, benign, output_of, request

pytestmark = pytest.mark.triton


async def test_calling_it_a_sequence_is_no_way_past(opened: Opener) -> None:
    parameters = {"sequence_id": 7, "sequence_start": True}
    async with opened({"digits_like": {"action": "block"}}) as d:
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED, parameters=parameters))


async def test_a_sequence_is_scored_on_the_input_and_never_blocked(opened: Opener) -> None:
    async with opened({"sequence_sum": {"action": "block", "dispatch": "speculative"}}) as d:
        total = 0.0
        for step, x in enumerate((CLEAN[:1], MIXED[1:2], CLEAN[2:3])):
            parameters = {
                **{"sequence_id": 9, "sequence_start": step == 0, "sequence_end": step == 2}
            }
            answer = await d.infer(request("sequence_sum", x, parameters=parameters))
            total += float(x.sum())
            assert output_of(answer)[0] == pytest.approx(total, rel=1e-5)
            assert p_values(d.flow) == {"residual"}
        assert [flow.action for flow in d.flows] == [Action.NONE, Action.FLAG, Action.NONE]
        assert len(d.upstream.sent["client"]) == 3
        assert d.upstream.sent["own"] == []


async def test_the_clients_word_for_a_sequence_spares_nothing(
    opened: Opener,
) -> None:
    async with opened({"digits_like_fp16": {"action": "block"}}) as d:
        defence = d.defences.find("digits_like_fp16")
        assert defence.spec is not None
        defence.spec = replace(defence.spec, may_be_stateful=True)
        outcomes = []
        for parameters in ({}, {"sequence_id": 0}, {"sequence_id": 3}, {"sequence_id": "a"}):
            message = request("digits_like_fp16", MIXED, parameters=parameters)
            await asyncio.gather(d.infer(message), return_exceptions=True)
            outcomes.append(d.flow.outcome)
        assert outcomes == ["blocked"] * 4


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_an_input_nobody_knows_is_no_way_past(opened: Opener, on_failure: str) -> None:
    message = infer_request({"picture": MIXED}, model="digits_like", request_id="client")
    async with opened({"digits_like": {"on_failure": on_failure}}) as d:
        with pytest.raises(DetectorFailed if on_failure == "closed" else UpstreamError):
            await d.infer(message)
        assert d.metric("detector_failures_total", reason="no_evidence") == 1


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (MIXED.astype(np.float64), "is FP64, the model takes FP32"),
        (MIXED * 255, "check range or mean/std"),
        (MIXED[:, :1], "expected"),
        (MIXED[0], "expected"),
        (benign(65, seed=1), "65 samples, more than 64"),
    ],
    ids=["datatype", "range", "channels", "axes", "batch"],
)
async def test_tensors_the_model_cannot_mean(
    opened: Opener, tensor: np.ndarray, message: str
) -> None:
    async with opened({"digits_like": {"dispatch": "sequential"}}) as d:
        with pytest.raises(InvalidTensor, match=message):
            await d.infer(infer_request({"image": tensor}, model="digits_like"))
        assert d.upstream.sent == {"client": [], "own": []}


async def test_a_request_without_the_image_has_nothing_to_score(opened: Opener) -> None:
    message = infer_request({"count": np.array([2], np.int32)}, model="repeat").SerializeToString()
    async with opened({"repeat": {"action": "block"}}) as d:
        flow = Flow("r", 0.0, None, "tester", streamed=True)
        assert await d.pipeline.inspect(flow, message, None) == message
        assert d.metric("unscored_total", reason="no_tensor") == 1


@pytest.mark.parametrize(
    ("policy", "error", "unscored"),
    [
        ("deny", SharedMemoryRefused, 0),
        ("passthrough", UpstreamError, 1),
        ("inspect", InvalidTensor, 0),
    ],
)
async def test_an_image_in_shared_memory(
    opened: Opener, policy: str, error: type[Exception], unscored: int
) -> None:
    message = request("digits_like", MIXED)
    message.ClearField("raw_input_contents")
    set_parameter(message.inputs[0].parameters, "shared_memory_region", "nowhere")
    set_parameter(message.inputs[0].parameters, "shared_memory_byte_size", 4 * 4 * 3 * 32 * 32)
    async with opened({"digits_like": {}}, shared_memory=policy) as d:
        with pytest.raises(error):
            await d.infer(message)
        assert d.metric("unscored_total", reason="shared_memory") == unscored
        assert d.metric("shared_memory_passthrough_total") == unscored
