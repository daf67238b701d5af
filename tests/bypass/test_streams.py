"""Streams that hide an attack among their messages, or try to wear the proxy out."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from proxy.pb import open_inference_pb2 as pb
from proxy.tasks import Tasks
from tests.bypass.subject import ATTACK, has_seen
from tests.images import CLEAN, request
from tests.proxy.running import LIMIT_S, Running, open_stream

pytestmark = pytest.mark.triton

BAD = request("digits_like", ATTACK)
GOOD = request("digits_like", CLEAN[:1])


async def answers(stream: grpc.aio.StreamStreamCall) -> list[pb.ModelStreamInferResponse]:
    return [pb.ModelStreamInferResponse.FromString(data) async for data in stream]


async def conversation(guarded: Running, messages: list, **options) -> list:
    stream = open_stream(guarded.channel, **options)
    for message in messages:
        await stream.write(message if isinstance(message, bytes) else message.SerializeToString())
    await stream.done_writing()
    return await answers(stream)


def is_error(answer: pb.ModelStreamInferResponse) -> bool:
    assert not has_seen(answer.infer_response.SerializeToString())
    return bool(answer.error_message)


@pytest.mark.parametrize(
    "pattern", ["B", "GB", "GGGGGGGGB", "BG", "GBGBBG", "B" * 50, "G" * 40 + "B"]
)
async def test_each_message_is_judged_for_itself(pattern: str, guarded: Running) -> None:
    found = await conversation(guarded, [BAD if each == "B" else GOOD for each in pattern])
    assert "".join("B" if is_error(answer) else "G" for answer in found) == pattern


async def test_with_one_id_for_all(guarded: Running) -> None:
    """An answer of ours must not be taken for one of the model's, nor the other way round."""
    found = await conversation(guarded, [GOOD, BAD, GOOD, BAD])
    assert [answer.infer_response.id for answer in found] == ["client"] * 4
    assert [is_error(answer) for answer in found] == [False, True, False, True]


async def test_after_messages_that_are_none(guarded: Running) -> None:
    junk = [b"", b"\0", b"\xff" * 100, b"\x0a\x0bdigits_like", GOOD, b"\x1f\x08", BAD]
    found = await conversation(guarded, junk)
    assert [is_error(answer) for answer in found] == [True] * 4 + [False, True, True]


async def test_models_in_turns(guarded: Running) -> None:
    names = ("digits_like", "digits_like_nhwc_uint8", "digits_like_fp16", "encoded")
    messages = [request(name, x) for name in names for x in (CLEAN[:1], ATTACK)]
    found = await conversation(guarded, messages)
    assert [is_error(answer) for answer in found] == [False, True] * 4


async def test_a_decoupled_model_beside_another(guarded: Running) -> None:
    messages = [request("repeat", CLEAN[:1]), request("repeat", ATTACK), BAD, GOOD]
    found = await conversation(guarded, messages)
    assert sum(is_error(answer) for answer in found) == 2
    assert len(found) == 4


@pytest.mark.parametrize("value", [True, False])
async def test_as_a_sequence_that_the_model_does_not_keep(value: bool, guarded: Running) -> None:
    message = request("digits_like", ATTACK)
    message.parameters["sequence_id"].int64_param = 3
    message.parameters["sequence_start"].bool_param = value
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    assert [is_error(answer) for answer in await conversation(guarded, [message] * 3)] == [True] * 3


async def test_the_first_error_ends_the_stream_where_the_client_wants_that(
    guarded: Running,
) -> None:
    stream = open_stream(guarded.channel, metadata=(("triton_grpc_error", "true"),))
    for message in (GOOD, BAD, GOOD):
        await stream.write(message.SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answers(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_hundreds_of_messages_that_nobody_reads_the_answers_to(guarded: Running) -> None:
    """The stream comes to rest instead of filling memory, and each is judged in the end."""
    stream, tasks, count = open_stream(guarded.channel, timeout=6 * LIMIT_S), Tasks(), 600

    async def write() -> None:
        for i in range(count):
            await stream.write((BAD if i % 2 else GOOD).SerializeToString())
        await stream.done_writing()

    writing = tasks.start(write())
    await asyncio.wait({writing}, timeout=1)
    found = [is_error(answer) for answer in await answers(stream)]
    assert found == [False, True] * (count // 2)
    await guarded.idle()


async def test_streams_cancelled_in_the_middle_of_a_judgement(guarded: Running) -> None:
    for _ in range(30):
        stream = open_stream(guarded.channel)
        await stream.write(BAD.SerializeToString())
        stream.cancel()
    await guarded.idle()
    assert [is_error(answer) for answer in await conversation(guarded, [GOOD, BAD])] == [0, 1]


async def test_many_streams_at_a_time(guarded: Running) -> None:
    found = await asyncio.gather(*(conversation(guarded, [GOOD, BAD]) for _ in range(40)))
    assert np.array([[is_error(answer) for answer in each] for each in found]).tolist() == [
        [False, True]
    ] * len(found)
