"""ModelStreamInfer: what a client of a stream sees, compared with Triton itself."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import pytest
import tritonclient.grpc as sync_client
import tritonclient.grpc.aio as aio_client

from proxy import rpc
from proxy.pb import open_inference_pb2 as pb
from tests.builders import infer_request
from tests.proxy.running import (
    LIMIT_S,
    UNBOUNDED,
    Call,
    Recorder,
    Running,
    open_stream,
    running,
)
from tuning.triton import EmbeddedTriton

MODELS = Path(__file__).resolve().parents[1] / "models"
IMAGE = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
EMPTY_FINAL = {"triton_enable_empty_final_response": True}
GRPC_ERROR = (("triton_grpc_error", "true"),)


def image(model: str, request_id: str, **parameters: object) -> pb.ModelInferRequest:
    return infer_request(
        {"image": IMAGE},
        model=model,
        request_id=request_id,
        parameters=parameters,  # type: ignore[arg-type]
    )


def count(n: int, request_id: str, **parameters: object) -> pb.ModelInferRequest:
    return infer_request(
        {"count": np.array([n], np.int32)},
        model="repeat",
        request_id=request_id,
        parameters=parameters,  # type: ignore[arg-type]
    )


def frame(value: float, request_id: str, **parameters: object) -> pb.ModelInferRequest:
    return infer_request(
        {"image": np.full((3, 32, 32), value, np.float32)},
        model="sequence_sum",
        request_id=request_id,
        parameters=parameters,  # type: ignore[arg-type]
    )


def invalid(request_id: str, model: str = "digits_like") -> pb.ModelInferRequest:
    """One that the proxy refuses itself."""
    request = image(model, request_id)
    request.raw_input_contents[0] = b"short"
    return request


class Outcome(NamedTuple):
    """All that a client sees of a stream."""

    messages: list[bytes]
    code: grpc.StatusCode
    details: str
    initial: tuple
    trailing: tuple

    @property
    def summary(self) -> list[str]:
        """Per message the request's id, with ! for an error."""
        answers = map(pb.ModelStreamInferResponse.FromString, self.messages)
        return ["!" * bool(a.error_message) + a.infer_response.id for a in answers]


async def converse(
    channel: grpc.aio.Channel, requests: Sequence[object], **options: object
) -> Outcome:
    """Send everything, half-close, read to the end."""
    call = open_stream(channel, **options)
    messages = []
    try:
        for request in requests:
            data = request if isinstance(request, bytes) else request.SerializeToString()  # type: ignore[attr-defined]
            await call.write(data)
        await call.done_writing()
        while (data := await call.read()) is not grpc.aio.EOF:
            messages.append(data)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    return Outcome(
        messages,
        await call.code(),
        await call.details() or "",
        tuple(await call.initial_metadata()),
        tuple(await call.trailing_metadata()),
    )


CONVERSATIONS = {
    "one": [image("digits_like", "a")],
    "nothing": [],
    "order": [image("slow", "a", delay_ms=80), *(image("digits_like", str(i)) for i in range(9))],
    "unknown model": [image("slow", "a", delay_ms=50), image("nonesuch", "b"), image("slow", "c")],
    "model error": [image("slow", "a", delay_ms=50), image("failing", "b"), image("slow", "c")],
    "decoupled": [count(3, "a")],
    "decoupled, nothing": [count(0, "a")],
    "decoupled, final": [count(2, "a", **EMPTY_FINAL)],
    "decoupled, nothing but final": [count(0, "a", **EMPTY_FINAL)],
    "coupled, final": [image("digits_like", "a", **EMPTY_FINAL)],
    "sequence": [
        frame(0.25, "1", sequence_id=71, sequence_start=True),
        frame(0.5, "2", sequence_id=71),
        frame(0.25, "3", sequence_id=71, sequence_end=True),
    ],
}


@pytest.mark.triton
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_stream_is_answered_as_by_triton(
    name: str, front: Running, direct: grpc.aio.Channel
) -> None:
    through = await converse(front.channel, CONVERSATIONS[name])
    assert through == await converse(direct, CONVERSATIONS[name])
    assert through.code is grpc.StatusCode.OK
    await front.idle()


@pytest.mark.triton
@pytest.mark.parametrize(
    ("value", "second"), [("1", "failing"), ("True", "failing"), ("true", "nonesuch")]
)
async def test_tritons_errors_stay_in_band_where_triton_leaves_them(
    value: str, second: str, front: Running, direct: grpc.aio.Channel
) -> None:
    requests = [image("digits_like", "a"), image(second, "b")]
    metadata = (("triton_grpc_error", value),)
    through = await converse(front.channel, requests, metadata=metadata)
    assert through == await converse(direct, requests, metadata=metadata)
    assert through.summary == ["a", "!b"]


@pytest.mark.triton
async def test_a_models_error_is_the_status_where_the_client_wants_it(tmp_path: Path) -> None:
    # A Triton of its own: this version (2.51) may crash some time after such an error
    # ("HandleCancellation called even when the context was not cancelled"), proxy or not.
    (tmp_path / "failing").symlink_to(MODELS / "failing")
    log = tmp_path / "log"
    with EmbeddedTriton(tmp_path, log=log) as triton:
        async with running(triton.grpc_address) as sidecar:
            outcome = await converse(sidecar.channel, [image("failing", "a")], metadata=GRPC_ERROR)
    assert outcome.messages == []
    assert outcome.code is grpc.StatusCode.INTERNAL
    assert outcome.details == "the model says no: layer 7 of secret_model"


@pytest.mark.triton
async def test_decoupled_answers_interleave_with_the_others(front: Running) -> None:
    requests = [image("slow", "s", delay_ms=1000), count(2, "r"), image("digits_like", "d")]
    outcome = await converse(front.channel, requests)
    assert outcome.summary == ["r", "r", "s", "d"]


# -- what the proxy answers itself -------------------------------------------------------------

SLOW_FIRST = [image("slow", "a", delay_ms=80)]
REFUSED = {
    "in the middle": ([*SLOW_FIRST, invalid("b"), image("digits_like", "c")], ["a", "!b", "c"]),
    "first": ([invalid("a"), image("slow", "b")], ["!a", "b"]),
    "last": ([*SLOW_FIRST, invalid("b")], ["a", "!b"]),
    "several": (
        [*SLOW_FIRST, invalid("b"), invalid("c"), *SLOW_FIRST, invalid("d")],
        "a !b !c a !d",
    ),
    "malformed": ([*SLOW_FIRST, b"\xff\xff", image("slow", "c", delay_ms=1)], ["a", "!", "c"]),
    "of another model": ([*SLOW_FIRST, invalid("b", "nonesuch")], ["a", "!b"]),
    "beside unknown ones": ([*SLOW_FIRST, image("nonesuch", "b"), invalid("c")], "a !b !c"),
    "alone": ([invalid("a")], ["!a"]),
    "after a decoupled one": ([count(0, "a"), invalid("b", "repeat")], ["!b"]),
    "in a mixed stream": (
        [image("slow", "a", delay_ms=150), count(2, "r"), invalid("c"), image("slow", "d")],
        "a !c d",
    ),
}


@pytest.mark.triton
@pytest.mark.parametrize("is_configured", [True, False])
@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_message_is_answered_at_its_place(
    name: str, is_configured: bool, triton: EmbeddedTriton
) -> None:
    requests, expected = REFUSED[name]
    models: dict[str, dict] = {"slow": {"inputs": [{"name": "image"}]}} if is_configured else {}
    if is_configured:
        models["slow"]["inputs"].append({"name": "delay_ms", "inspect": False})
    async with running(triton.grpc_address, models=models) as sidecar:
        outcome = await converse(sidecar.channel, requests)
    # What a decoupled model answers ("r") comes when it comes, and holds nobody's place.
    in_order = [answer for answer in outcome.summary if answer != "r"]
    assert in_order == (expected.split() if isinstance(expected, str) else expected)
    assert outcome.summary.count("r") == (2 if name == "in a mixed stream" else 0)
    assert outcome.code is grpc.StatusCode.OK


@pytest.mark.triton
async def test_a_refusal_ends_the_stream_where_errors_do(front: Running) -> None:
    requests = [*SLOW_FIRST, invalid("b"), image("digits_like", "c")]
    outcome = await converse(front.channel, requests, metadata=GRPC_ERROR)
    assert outcome.summary == ["a"]
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'image'" in outcome.details
    await front.idle()


@pytest.mark.triton
async def test_scrubbed_errors_keep_their_place_and_id(triton: EmbeddedTriton) -> None:
    async with running(triton.grpc_address, scrub_errors=True) as sidecar:
        outcome = await converse(sidecar.channel, [image("failing", "a"), image("slow", "b")])
    assert outcome.summary == ["!a", "b"]
    assert b"secret" not in outcome.messages[0]
    assert b"the model server reported an error" in outcome.messages[0]


# -- in front of a recording server --------------------------------------------------------------


async def echo(call: Call, context: grpc.aio.ServicerContext) -> None:
    """One answer a request, the request's own bytes."""
    while (data := await context.read()) is not grpc.aio.EOF:
        call.messages.append(data)
        await context.write(data)


async def test_messages_and_metadata_pass_untouched(recorder: tuple[Recorder, str]) -> None:
    returned = (("x-kind", "a"), ("x-raw-bin", b"\x01\x00"))

    async def answer(call: Call, context: grpc.aio.ServicerContext) -> None:
        await context.send_initial_metadata((*returned, ("breakwater-verdict", "forged")))
        await echo(call, context)
        context.set_trailing_metadata((*returned, ("breakwater-verdict", "forged")))

    recorder[0].stream = answer
    odd = b"\xba\x3e\x03new" + image("m", "a").SerializeToString() + b"\x1a\x01b"
    sent = (("x-team", "1"), ("x-blob-bin", b"\xff"), ("breakwater-request-id", "forged"))
    async with running(recorder[1]) as sidecar:
        outcome = await converse(sidecar.channel, [odd, odd], metadata=sent)
        assert outcome == Outcome([odd, odd], grpc.StatusCode.OK, "", returned, returned)
        empty = await converse(sidecar.channel, [])
        assert (empty.initial, empty.trailing) == (returned, returned)
    call = recorder[0].of("ModelStreamInfer")[0]
    assert call.messages == [odd, odd]
    assert call.values("x-blob-bin") == [b"\xff"]
    assert not [key for key, _ in call.metadata if key.startswith("breakwater-")]


async def test_an_answer_of_ours_before_tritons_metadata_harms_nothing(
    recorder: tuple[Recorder, str],
) -> None:
    async def answer(call: Call, context: grpc.aio.ServicerContext) -> None:
        await context.read()
        await context.send_initial_metadata((("x-late", "1"),))
        await context.write(b"")

    recorder[0].stream = answer
    async with running(recorder[1]) as sidecar:
        outcome = await converse(sidecar.channel, [b"\xff", image("m", "b")])
    assert outcome.code is grpc.StatusCode.OK
    assert outcome.summary == ["!", ""]


def _converse_from_a_thread(address: str, requests: list[bytes]) -> grpc.RpcError:
    """With the synchronous client: grpc.aio's loses a status that crosses a write."""
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(rpc.STREAM_INFER.path)(iter(requests), timeout=LIMIT_S)
        with pytest.raises(grpc.RpcError) as error:
            list(call)
    return error.value


@pytest.mark.parametrize("scrub", [True, False])
@pytest.mark.parametrize("is_read", [True, False])
async def test_the_servers_status_ends_the_stream(
    is_read: bool, scrub: bool, recorder: tuple[Recorder, str]
) -> None:
    trailing = (("grpc-status-details-bin", b"\x08\x05"), ("x-why", "tired"))

    async def answer(call: Call, context: grpc.aio.ServicerContext) -> None:
        if is_read:
            await context.read()
        await context.abort(grpc.StatusCode.ABORTED, "no more", trailing)

    recorder[0].stream = answer
    requests = [image("m", "a").SerializeToString()] * 20
    details = "the model server reported an error" if scrub else "no more"
    async with running(recorder[1], scrub_errors=scrub) as sidecar:
        for _ in range(10):
            error = await asyncio.to_thread(_converse_from_a_thread, sidecar.address, requests)
            assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, details)  # type: ignore[attr-defined]
            assert tuple(error.trailing_metadata()) == (() if scrub else trailing)  # type: ignore[attr-defined]
        await sidecar.idle()


async def test_the_server_may_finish_before_the_client(recorder: tuple[Recorder, str]) -> None:
    async def answer(call: Call, context: grpc.aio.ServicerContext) -> None:
        await context.write(await context.read())

    recorder[0].stream = answer
    async with running(recorder[1]) as sidecar:
        call = open_stream(sidecar.channel)
        data = image("m", "a").SerializeToString()
        await call.write(data)
        assert await call.read() == data
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        await sidecar.idle()


@pytest.mark.triton
async def test_answers_come_before_the_client_has_finished(front: Running) -> None:
    call = open_stream(front.channel)
    for request_id in ("a", "b", "c"):
        await call.write(image("digits_like", request_id).SerializeToString())
        answer = pb.ModelStreamInferResponse.FromString(await call.read())
        assert answer.infer_response.id == request_id
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_side_that_does_not_read_is_not_read_for(
    side: str, recorder: tuple[Recorder, str]
) -> None:
    """Backpressure: what one side does not take, the other cannot pile up in the proxy."""
    total, size = 200, 500_000
    message = infer_request({"image": np.zeros(size // 4, np.float32)}, model="m")
    data, sent = message.SerializeToString(), []
    release = asyncio.Event()

    async def pour(write: object) -> None:
        for _ in range(total):
            await write(data)  # type: ignore[operator]
            sent.append(1)

    async def answer(call: Call, context: grpc.aio.ServicerContext) -> None:
        if side == "client":
            await pour(context.write)
        else:
            await release.wait()
            while await context.read() is not grpc.aio.EOF:
                sent.append(0)

    recorder[0].stream = answer
    async with running(recorder[1]) as sidecar:
        call = open_stream(sidecar.channel, timeout=60)
        writing = asyncio.ensure_future(pour(call.write)) if side == "server" else None
        stalled, before = False, -1
        while not stalled:  # two looks with time enough between them for 50 messages
            before = len(sent)
            await asyncio.wait([writing or asyncio.ensure_future(release.wait())], timeout=0.3)
            stalled = 0 < before == len(sent)
        assert len(sent) < total / 4
        release.set()
        if writing is not None:
            await writing
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert sent.count(0) == total
        else:
            for _ in range(total):
                assert await call.read() == data


async def test_what_waits_for_its_turn_is_bounded(recorder: tuple[Recorder, str]) -> None:
    release = asyncio.Event()

    async def answer(call: Call, context: grpc.aio.ServicerContext) -> None:
        await context.read()
        await release.wait()
        await context.write(pb.ModelStreamInferResponse().SerializeToString())
        await context.read()

    async def not_found(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "")
        return b""

    recorder[0].stream = answer
    recorder[0].answers["ModelConfig"] = not_found  # unknown models: one error each, in order
    refused, total = invalid("x").SerializeToString(), 5000
    async with running(recorder[1]) as sidecar:
        call = open_stream(sidecar.channel, timeout=60)

        async def pour() -> None:
            await call.write(image("m", "a").SerializeToString())
            for _ in range(total):
                await call.write(refused)
            await call.done_writing()

        writing = asyncio.ensure_future(pour())
        seen, before = 0.0, -1.0
        while seen != before or not seen:
            before = seen
            await asyncio.wait([writing], timeout=0.3)
            seen = await sidecar.metric("requests_total", outcome="invalid_tensor")
        assert seen < 1100
        release.set()
        answers = 0
        while await call.read() is not grpc.aio.EOF:
            answers += 1
        assert answers == total + 1
        await writing


async def test_a_message_over_the_limit_ends_the_stream(recorder: tuple[Recorder, str]) -> None:
    recorder[0].stream = echo
    large = infer_request({"image": np.zeros(50_000, np.float32)}, model="m")
    async with running(recorder[1], max_message_bytes=100_000) as sidecar:
        outcome = await converse(sidecar.channel, [large])
        assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await sidecar.idle()


async def test_a_streams_deadline_is_the_clients(recorder: tuple[Recorder, str]) -> None:
    async def answer(call: Call, context: grpc.aio.ServicerContext) -> None:
        await asyncio.Event().wait()

    recorder[0].stream = answer
    async with running(recorder[1]) as sidecar:
        outcome = await converse(sidecar.channel, [image("m", "a")], timeout=0.3)
        assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await sidecar.idle()
    remaining = recorder[0].of("ModelStreamInfer")[0].time_remaining
    assert remaining is not None
    assert 0 < remaining < 0.4  # gRPC rounds up on the wire


# -- tritonclient ------------------------------------------------------------------------------


def _use_sync_stream(address: str) -> list[tuple[str, str | None]]:
    answers: queue.Queue = queue.Queue()
    with sync_client.InferenceServerClient(address, channel_args=list(UNBOUNDED)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        tensor = sync_client.InferInput("count", [1], "INT32")
        tensor.set_data_from_numpy(np.array([2], np.int32))
        client.async_stream_infer(
            "repeat", [tensor], request_id="r", enable_empty_final_response=True
        )
        bad = sync_client.InferInput("image", [1, 3, 32, 32], "FP32")
        bad.set_data_from_numpy(np.full((1, 3, 32, 32), np.nan, np.float32))
        client.async_stream_infer("digits_like", [bad], request_id="b")
        seen = []
        for _ in range(4):
            result, error = answers.get(timeout=LIMIT_S)
            seen.append(("", error.message()) if error else (result.get_response().id, None))
        client.stop_stream()
    return seen


@pytest.mark.triton
async def test_tritonclient_stream(front: Running) -> None:
    seen = await asyncio.to_thread(_use_sync_stream, front.address)
    assert [s for s in seen if s[1] is None] == [("r", None)] * 3
    (error,) = [s[1] for s in seen if s[1] is not None]
    assert error == "input 'image': has a value that is NaN or infinite"
    await front.idle()


@pytest.mark.triton
async def test_tritonclient_aio_stream(front: Running) -> None:
    def requests():
        for step in (1, 2, 3):
            tensor = aio_client.InferInput("image", [3, 32, 32], "FP32")
            tensor.set_data_from_numpy(np.ones((3, 32, 32), np.float32))
            yield {
                "model_name": "sequence_sum",
                "inputs": [tensor],
                "sequence_id": 99,
                "sequence_start": step == 1,
                "sequence_end": step == 3,
            }

    async def send():
        for request in requests():
            yield request

    async with aio_client.InferenceServerClient(front.address) as client:
        steps = [result.as_numpy("steps")[0] async for result, error in client.stream_infer(send())]
    assert steps == [1, 2, 3]
    await front.idle()
