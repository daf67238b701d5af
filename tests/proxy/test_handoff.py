"""Tensors lent to Triton: what goes wrong first, with the real one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from proxy.arena import FOLDER, PREFIX, Arena
from proxy.errors import UpstreamError, UpstreamUnavailable
from proxy.handoff import OUTCOMES, RETRY_S, HandoffUpstream
from proxy.metrics import HANDOFFS
from proxy.pb import open_inference_pb2 as pb
from proxy.wire import InferRequest
from tests.builders import infer_request
from tests.defended import settings_of
from tests.images import CLEAN, MIXED, request
from tests.proxy.running import Call, Recorder, ask, recording, running, until
from tuning.triton import EmbeddedTriton

KIB = 1024
IMAGE_BYTES = 3 * 32 * 32 * 4


@contextlib.asynccontextmanager
async def handing(address: str, **settings: Any) -> AsyncIterator[HandoffUpstream]:
    fields: dict[str, Any] = {"memory_bytes": 1024 * KIB, "hold_s": 300.0, "least_bytes": 1024}
    upstream = HandoffUpstream(address, max_message_bytes=1 << 26, **(fields | settings))
    await upstream.open()
    keeping = asyncio.ensure_future(upstream.run())
    try:
        yield upstream
    finally:
        keeping.cancel()
        await upstream.close()


def image(seed: int, batch: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((batch, 3, 32, 32), np.float32)


def message(x: NDArray[Any], *, model: str = "identity_fp32", **more: Any) -> bytes:
    return infer_request({"image": x}, model=model, **more).SerializeToString()


async def echo(upstream: HandoffUpstream, x: NDArray[Any]) -> bytes:
    answer = await upstream.infer(message(x), timeout_s=10)
    return pb.ModelInferResponse.FromString(answer.data).raw_output_contents[0]


def counted(upstream: HandoffUpstream) -> dict[str, int]:
    return {outcome: n for outcome, n in upstream.counts.items() if n}


def test_the_metrics_know_every_outcome() -> None:
    assert OUTCOMES == HANDOFFS


# -- the ordinary --------------------------------------------------------------------------------


@pytest.mark.triton
async def test_a_tensor_goes_through_memory_and_nothing_stays_lent(triton: EmbeddedTriton) -> None:
    async with handing(triton.grpc_address) as upstream:
        assert upstream.is_registered
        assert not list(FOLDER.glob(f"{PREFIX}*")), "no name leads to the memory"
        for seed in range(3):
            x = image(seed)
            assert await echo(upstream, x) == x.tobytes()
        assert counted(upstream) == {"used": 3}
        assert upstream.leased_bytes == 0


@pytest.mark.triton
async def test_a_hundred_at_a_time_each_get_their_own_answer(triton: EmbeddedTriton) -> None:
    """With room for half of them: the others go inline."""
    async with handing(triton.grpc_address, memory_bytes=50 * IMAGE_BYTES) as upstream:
        x = [image(seed) for seed in range(100)]
        for _ in range(3):
            answers = await asyncio.gather(*(echo(upstream, one) for one in x))
            assert answers == [one.tobytes() for one in x]
        assert upstream.counts["used"] >= 150
        assert upstream.counts["full"] > 0
        assert upstream.leased_bytes == 0


@pytest.mark.triton
async def test_every_kind_of_tensor_arrives(triton: EmbeddedTriton) -> None:
    """Large ones through memory; small ones, empty ones and text beside them in the message."""
    rng = np.random.default_rng(0)
    tensors = {
        "IN_FP64": rng.random(200),
        "IN_INT8": rng.integers(-9, 9, 5, np.int8),
        "IN_BYTES": np.array([b"x" * 3000, b""], np.object_),
        "IN_FP16": rng.random(1000).astype(np.float16),
        "IN_UINT8": np.zeros(0, np.uint8),
        "IN_BOOL": rng.random(2000) > 0.5,
    }
    sent = infer_request(tensors, model="all_types")
    async with handing(triton.grpc_address) as upstream:
        answer = await upstream.infer(sent.SerializeToString(), timeout_s=10)
        assert counted(upstream) == {"used": 1}
    response = pb.ModelInferResponse.FromString(answer.data)
    got = dict(zip([o.name for o in response.outputs], response.raw_output_contents, strict=True))
    for name, raw in zip(tensors, sent.raw_input_contents, strict=True):
        assert got[name.replace("IN_", "OUT_")] == raw


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["small", "typed", "sequence", "text"])
async def test_what_does_not_go_through_memory(kind: str, triton: EmbeddedTriton) -> None:
    x = image(0)
    data = {
        "small": message(x[:, :1, :8, :8]),
        "typed": _typed(x),
        "sequence": message(x, parameters={"sequence_id": 5}),
        "text": infer_request(
            {"text": np.array([b"x" * 5000], np.object_)}, model="identity_bytes"
        ).SerializeToString(),
    }[kind]
    async with handing(triton.grpc_address) as upstream:
        answer = await upstream.infer(data, timeout_s=10)
        plain = await upstream.call(
            "/inference.GRPCInferenceService/ModelInfer", data, timeout_s=10
        )
        assert answer.data == plain.data
        expected = "inline_small" if kind in ("small", "text") else "inline_unsuitable"
        assert counted(upstream) == {expected: 1}


def _typed(x: NDArray[np.float32]) -> bytes:
    request = pb.ModelInferRequest(model_name="identity_fp32")
    item = request.inputs.add(name="image", datatype="FP32", shape=x.shape)
    item.contents.fp32_contents.extend(x.ravel().tolist())
    return request.SerializeToString()


@pytest.mark.triton
async def test_tritons_own_errors_are_as_without_memory(triton: EmbeddedTriton) -> None:
    """A tensor of a wrong shape, and a model that is not there; the memory is free again."""
    async with handing(triton.grpc_address) as upstream:
        for data in (message(image(0)[0]), message(image(0), model="nobody")):
            with pytest.raises(UpstreamError) as error:
                await upstream.infer(data, timeout_s=10)
            with pytest.raises(UpstreamError) as plain:
                await upstream.call(
                    "/inference.GRPCInferenceService/ModelInfer", data, timeout_s=10
                )
            assert (error.value.code, error.value.details) == (
                plain.value.code,
                plain.value.details,
            )
            assert upstream.leased_bytes == 0
        assert counted(upstream) == {"used": 2}


# -- calls that end without Triton's word --------------------------------------------------------


@pytest.mark.triton
@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_memory_that_may_still_be_read_is_not_lent_again(
    how: str, triton: EmbeddedTriton
) -> None:
    """The one slot there is: taken by a call that nobody waits for any more."""
    now_s = 0.0
    async with handing(
        triton.grpc_address,
        memory_bytes=IMAGE_BYTES,
        new_arena=lambda size: Arena(size, clock=lambda: now_s),
    ) as upstream:
        data = message(image(0), model="slow", parameters={"delay_ms": 300})
        if how == "deadline":
            with pytest.raises(UpstreamError, match="Deadline"):
                await upstream.infer(data, timeout_s=0.05)
        else:
            calling = asyncio.ensure_future(upstream.infer(data, timeout_s=10))

            async def is_lent() -> bool:
                return upstream.leased_bytes == IMAGE_BYTES

            await until(is_lent)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
        x = image(1)
        assert await echo(upstream, x) == x.tobytes()
        now_s = 299.9
        assert await echo(upstream, x) == x.tobytes()
        assert counted(upstream) == {"used": 1, "full": 2}
        now_s = 300.0
        assert await echo(upstream, x) == x.tobytes()
        assert counted(upstream) == {"used": 2, "full": 2}


async def test_a_server_that_gave_up_may_not_be_done(recorder: tuple[Recorder, str]) -> None:
    """Only a status that says the server has dealt with the request frees its memory."""
    handler, address = recorder
    codes = {
        grpc.StatusCode.INVALID_ARGUMENT: 0,
        grpc.StatusCode.INTERNAL: 0,
        grpc.StatusCode.UNAVAILABLE: 0,
        grpc.StatusCode.CANCELLED: IMAGE_BYTES,
        grpc.StatusCode.DEADLINE_EXCEEDED: 2 * IMAGE_BYTES,
    }
    async with handing(address) as upstream:
        for code, held in codes.items():

            async def fail(
                call: Call, context: grpc.aio.ServicerContext, code: grpc.StatusCode = code
            ) -> bytes:
                await context.abort(code, "why")
                return b""

            handler.answers["ModelInfer"] = fail
            with pytest.raises(UpstreamError, match="why"):
                await upstream.infer(message(image(0)), timeout_s=10)
            assert upstream.leased_bytes == held


# -- Triton comes and goes -----------------------------------------------------------------------


async def _registered(upstream: HandoffUpstream) -> None:
    async def is_so() -> bool:
        return upstream.is_registered

    await until(is_so)


@pytest.fixture
def own_triton(tmp_path: Path, triton: EmbeddedTriton) -> Iterator[EmbeddedTriton]:
    """A Triton of this test's own, to be ended as it likes."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("identity_fp32", "slow"):
        (models / name).symlink_to(Path(__file__).parents[1] / "models" / name)
    with EmbeddedTriton(models, log=tmp_path / "log") as server:
        yield server


@pytest.mark.triton
async def test_triton_restarts_in_mid_flight(own_triton: EmbeddedTriton) -> None:
    async with handing(own_triton.grpc_address) as upstream:
        slow = message(image(0), model="slow", parameters={"delay_ms": 5000})
        flying = [asyncio.ensure_future(upstream.infer(slow, timeout_s=60)) for _ in range(4)]

        async def are_lent() -> bool:
            return upstream.leased_bytes == 4 * IMAGE_BYTES

        await until(are_lent)
        await asyncio.to_thread(own_triton.kill)
        ends = await asyncio.gather(*flying, return_exceptions=True)
        assert all(isinstance(end, UpstreamUnavailable) for end in ends)
        assert upstream.leased_bytes == 4 * IMAGE_BYTES, "it may have been a hiccup of the network"
        await asyncio.to_thread(own_triton.restart)
        x = [image(seed) for seed in range(20)]

        async def is_back() -> bool:
            try:
                return await echo(upstream, x[0]) == x[0].tobytes()
            except UpstreamUnavailable:
                return False

        await until(is_back)
        answers = await asyncio.gather(*(echo(upstream, one) for one in x))
        assert answers == [one.tobytes() for one in x]
        assert upstream.counts["lost"] >= 1
        await _registered(upstream)
        before = upstream.counts["used"]
        assert await echo(upstream, x[1]) == x[1].tobytes()
        assert upstream.counts["used"] == before + 1
        assert upstream.leased_bytes == 0, "new memory: what was lent of the old may be read yet"


@pytest.mark.triton
async def test_a_client_that_unregisters_everything(triton: EmbeddedTriton) -> None:
    """All that are under way are sent again inline, and nobody is told of the memory."""
    async with (
        running(triton.grpc_address, upstream_shared_memory="system", scrub_errors=False) as front,
        grpc.aio.insecure_channel(triton.grpc_address) as direct,
    ):
        x = image(0, batch=16)
        assert x.nbytes >= 64 * KIB
        for round_ in range(3):
            replies = await asyncio.gather(
                *(ask(front.channel, "ModelInfer", message(x)) for _ in range(8))
            )
            for reply in replies:
                assert reply.code is grpc.StatusCode.OK
                raw = pb.ModelInferResponse.FromString(reply.data).raw_output_contents[0]
                assert raw == x.tobytes()
            everything = pb.SystemSharedMemoryUnregisterRequest()
            await ask(direct, "SystemSharedMemoryUnregister", everything)
            lost = await front.metric("upstream_shared_memory_total", outcome="lost")
            assert (lost > 0) == (round_ > 0)
            await ask(front.channel, "ModelInfer", message(x))  # finds out

            async def is_back() -> bool:
                used = await front.metric("upstream_shared_memory_total", outcome="used")
                await ask(front.channel, "ModelInfer", message(x))
                now = await front.metric("upstream_shared_memory_total", outcome="used")
                return now > used

            await until(is_back)
        assert await front.metric("upstream_shared_memory_leased_bytes") == 0


async def test_a_server_that_will_not_have_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with recording() as (recorder, address):

        async def refuse(call: Call, context: grpc.aio.ServicerContext) -> bytes:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted")
            return b""

        recorder.answers["SystemSharedMemoryRegister"] = refuse
        async with handing(address) as upstream:
            assert await upstream.register() == RETRY_S
            assert not upstream.is_registered
            data = message(image(0))
            await upstream.infer(data, timeout_s=10)
            assert recorder.of("ModelInfer")[0].data == data
            assert counted(upstream) == {"unregistered": 1}
            warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
            assert len(warnings) == 1, "once, however often it is tried"
            assert "This protocol is restricted" in warnings[0]
            del recorder.answers["SystemSharedMemoryRegister"]
            await upstream.register()
            assert upstream.is_registered
            await upstream.infer(data, timeout_s=10)
            assert len(recorder.of("ModelInfer")[1].data) < 400
    assert not list(FOLDER.glob(f"{PREFIX}*"))


async def test_a_machine_without_the_memory(
    recorder: tuple[Recorder, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with handing(recorder[1], memory_bytes=1 << 50) as upstream:
        assert not upstream.is_registered
        await upstream.infer(message(image(0)), timeout_s=10)
    assert "no shared memory of" in caplog.text
    assert not list(FOLDER.glob(f"{PREFIX}*"))


async def test_the_memory_is_given_back_when_nobody_can_read_it() -> None:
    async with recording() as (recorder, address):
        async with handing(address) as upstream:
            await upstream.infer(message(image(0)), timeout_s=10)
        (back,) = recorder.of("SystemSharedMemoryUnregister")
        name = pb.SystemSharedMemoryUnregisterRequest.FromString(back.data).name
        assert name.startswith(PREFIX)

        async def never(call: Call, context: grpc.aio.ServicerContext) -> bytes:
            await asyncio.Event().wait()
            return b""

        recorder.answers["ModelInfer"] = never
        async with handing(address) as upstream:
            with pytest.raises(UpstreamError):
                await upstream.infer(message(image(0)), timeout_s=0.05)
        assert len(recorder.of("SystemSharedMemoryUnregister")) == 1


async def test_the_servers_text_names_memory_that_is_not_ours(
    recorder: tuple[Recorder, str],
) -> None:
    """It is the client's to read, and the request is not sent twice."""
    handler, address = recorder

    async def fail(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'x'")
        return b""

    handler.answers["ModelInfer"] = fail
    async with handing(address) as upstream:
        with pytest.raises(UpstreamError, match="region: 'x'"):
            await upstream.infer(message(image(0)), timeout_s=10)
        assert len(handler.of("ModelInfer")) == 1
        assert upstream.is_registered


async def test_a_message_already_read_is_not_read_again(recorder: tuple[Recorder, str]) -> None:
    """And one that was rewritten since is: the bytes sent are those of the message."""
    handler, address = recorder
    async with handing(address, memory_bytes=IMAGE_BYTES) as upstream:
        data = message(image(0), request_id="first")
        request = InferRequest.parse(data)
        await upstream.infer(data, timeout_s=10, request=request)
        other = message(image(1), request_id="second")
        await upstream.infer(other, timeout_s=10, request=request)
    ids = [pb.ModelInferRequest.FromString(call.data).id for call in handler.of("ModelInfer")]
    assert ids == ["first", "second"]


@pytest.mark.triton
async def test_scored_and_purified_requests_go_through_memory_too(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    """With the same answers: clean ones, purified ones, and the copies the detectors ask about."""
    models = settings_of(calibrations, {"digits_like": {"action": "purify"}})
    answers: dict[str, list[bytes]] = {}
    for way in ("off", "system"):
        async with running(
            triton.grpc_address,
            models=models,
            upstream_shared_memory=way,
            upstream_shared_memory_from_kb=1,
        ) as sidecar:
            await sidecar.ready()
            replies = [
                await ask(sidecar.channel, "ModelInfer", request("digits_like", x))
                for x in (CLEAN, MIXED, CLEAN[:1])
            ]
            assert all(reply.code is grpc.StatusCode.OK for reply in replies)
            answers[way] = [reply.data for reply in replies]
            assert await sidecar.metric("requests_total", action="purify") == 1
            used = await sidecar.metric("upstream_shared_memory_total", outcome="used")
            others = await sidecar.metric("upstream_shared_memory_total") - used
            assert others == 0
            # The three requests, what became of the purified one, and the copies of each.
            assert used == 0 if way == "off" else used >= 6
    assert answers["off"] == answers["system"]
