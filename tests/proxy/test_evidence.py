"""What is looked at, whatever the client asked for, and how long evidence is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from proxy.errors import Blocked, UpstreamError
from proxy.pb import open_inference_pb2 as pb
from tests.builders import infer_request, set_parameter
from tests.defended import ALL_FOUR, Opener, each, p_values, stream_message
from tests.images import CLEAN, MIXED, images_of, request

pytestmark = pytest.mark.triton


def classes(message: pb.ModelInferRequest) -> None:
    set_parameter(message.outputs.add(name="logits").parameters, "classification", 3)


def in_shared_memory(message: pb.ModelInferRequest) -> None:
    parameters = message.outputs.add(name="logits").parameters
    set_parameter(parameters, "shared_memory_region", "nowhere")
    set_parameter(parameters, "shared_memory_byte_size", 160)


def plain_and_classes(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="logits")
    classes(message)


def another(message: pb.ModelInferRequest) -> None:
    message.outputs.add(name="something")


@pytest.mark.parametrize("hide", [classes, in_shared_memory, plain_and_classes, another])
async def test_hiding_the_answer_hides_nothing(
    opened: Opener, hide: Callable[[pb.ModelInferRequest], None]
) -> None:
    fields = {"action": "block", "dispatch": "sequential"}
    async with opened({"digits_like": fields}, shared_memory="passthrough") as d:
        message = request("digits_like", MIXED)
        hide(message)
        with pytest.raises(Blocked):
            await d.infer(message)
        assert p_values(d.flow) == ALL_FOUR
        assert d.upstream.sent["client"] == []
        (own,) = d.upstream.sent["own"]
        assert len(images_of("digits_like", own)) == 12  # the original and two copies
        query = pb.ModelInferRequest.FromString(own)
        assert [(o.name, len(o.parameters)) for o in query.outputs] == [("logits", 0)]


async def test_classes_of_clean_images_are_answered(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "block"}}) as d:
        message = request("digits_like", CLEAN)
        classes(message)
        answer = pb.ModelInferResponse.FromString((await d.infer(message)).data)
        assert answer.outputs[0].datatype == "BYTES"
        assert each(d.flow.samples) == ["pass"] * 4


async def test_an_answer_that_is_not_what_was_asked_for_is_asked_again(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "block"}}) as d:
        d.upstream.blank = {"client"}
        with pytest.raises(Blocked):
            await d.infer(request("digits_like", MIXED))
        assert p_values(d.flow) == ALL_FOUR
        assert [len(images_of("digits_like", m)) for m in d.upstream.sent["own"]] == [8, 4]


async def test_views_are_waited_for_no_longer_than_the_budget(opened: Opener) -> None:
    async with opened({"digits_like": {"budget_ms": 50, "action": "block"}}) as d:
        d.upstream.held = {"own"}
        with pytest.raises(Blocked):  # by what there is
            await d.infer(request("digits_like", MIXED))
        assert d.flow.failure == "budget"
        d.upstream.release()
        await asyncio.sleep(0)
        assert d.upstream.cancelled == []


async def test_the_models_own_time_is_not_counted(opened: Opener) -> None:
    async with opened({"digits_like": {"budget_ms": 300}}) as d:
        d.upstream.held = {"client"}
        task = asyncio.ensure_future(d.infer(request("digits_like", CLEAN)))
        await d.upstream.expect("client")
        await asyncio.wait({task}, timeout=0.4)  # longer than the whole budget
        d.upstream.release()
        await task
        assert d.flow.failure == ""


async def test_an_empty_batch_has_no_verdict(opened: Opener) -> None:
    async with opened({"digits_like": {}, "encoded": {}}) as d:
        for message in (
            request("digits_like", CLEAN[:0]),
            infer_request({"image": np.empty((0, 1), np.object_)}, model="encoded"),
        ):
            with pytest.raises(UpstreamError):  # Triton takes none
                await d.infer(message)
            assert d.flow.samples == ()
            assert d.flow.verdict is None


async def test_a_stream_has_the_same_evidence(opened: Opener) -> None:
    async with opened({"digits_like": {"action": "purify"}}) as d:
        clean = request("digits_like", CLEAN)
        assert await stream_message(d, clean) == clean.SerializeToString()
        assert p_values(d.flow) == ALL_FOUR
        after = images_of("digits_like", await stream_message(d, request("digits_like", MIXED)))
        assert [i for i in range(4) if not np.array_equal(after[i], MIXED[i])] == [1]


async def test_a_decoupled_model_is_scored_on_its_input(opened: Opener) -> None:
    async with opened({"repeat": {"action": "block"}}) as d:
        assert await stream_message(d, request("repeat", CLEAN[:1]))
        assert p_values(d.flow) == {"residual"}
        with pytest.raises(Blocked):
            await stream_message(d, request("repeat", MIXED[1:2]))
        assert d.upstream.sent["own"] == []
