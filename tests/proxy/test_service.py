"""Unary RPCs, compared with what Triton itself answers, and with what reaches it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import get_args

import grpc
import numpy as np
import pytest
import tritonclient.grpc as sync_client
import tritonclient.grpc.aio as aio_client
from tritonclient.utils import InferenceServerException

from proxy import rpc
from proxy.audit import AuditLog
from proxy.config import Config, RpcGroup
from proxy.defences import Defences
from proxy.inflow.untaken import Untaken
from proxy.inflow.waiting import Waiting
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.pipeline import Parts, Pipeline
from proxy.service import TritonService
from proxy.unpacking import Unpacker
from tests.builders import infer_request
from tests.proxy.running import (
    Call,
    Recorder,
    Running,
    ask,
    open_stream,
    recording,
    relayed,
    running,
    serving,
)
from tuning.triton import EmbeddedTriton

IMAGE = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
INFER = infer_request({"image": IMAGE}, model="digits_like", request_id="r1")

REQUESTS = {
    "ServerLive": pb.ServerLiveRequest(),
    "ServerReady": pb.ServerReadyRequest(),
    "ModelReady": pb.ModelReadyRequest(name="digits_like"),
    "ServerMetadata": pb.ServerMetadataRequest(),
    "ModelMetadata": pb.ModelMetadataRequest(name="digits_like"),
    "ModelInfer": INFER,
    "ModelConfig": pb.ModelConfigRequest(name="digits_like"),
    "ModelStatistics": pb.ModelStatisticsRequest(name="identity_bytes"),
    "RepositoryIndex": pb.RepositoryIndexRequest(),
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="digits_like"),
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="digits_like"),
    "SystemSharedMemoryStatus": pb.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest(
        name="gone", key="/breakwater_gone", byte_size=4
    ),
    "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterRequest(name="gone"),
    "CudaSharedMemoryStatus": pb.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": pb.CudaSharedMemoryRegisterRequest(
        name="gone", raw_handle=b"h", byte_size=4
    ),
    "CudaSharedMemoryUnregister": pb.CudaSharedMemoryUnregisterRequest(name="gone"),
    "TraceSetting": pb.TraceSettingRequest(),
    "LogSettings": pb.LogSettingsRequest(),
}
UNARY = [r for r in rpc.RPCS.values() if not r.streaming]


def test_every_unary_rpc_has_a_request_here() -> None:
    assert REQUESTS.keys() == {r.name for r in UNARY}


@pytest.mark.triton
@pytest.mark.parametrize("method", UNARY, ids=lambda r: r.name)
async def test_an_allowed_rpc_is_answered_as_by_triton(
    method: rpc.Rpc, open_front: Running, direct: grpc.aio.Channel
) -> None:
    through = await ask(open_front.channel, method.name, REQUESTS[method.name])
    straight = await ask(direct, method.name, REQUESTS[method.name])
    assert through._replace(data=b"") == straight._replace(data=b"")
    # As messages: Triton writes the entries of a map in any order.
    kind = getattr(pb, f"{method.name}Response")
    assert kind.FromString(through.data) == kind.FromString(straight.data)


@pytest.mark.triton
@pytest.mark.parametrize("method", UNARY, ids=lambda r: r.name)
async def test_default_policy_allows_what_it_must_and_names_what_it_refuses(
    method: rpc.Rpc, front: Running, direct: grpc.aio.Channel
) -> None:
    before = await front.metric("rpc_refused_total", group=method.group)
    reply = await ask(front.channel, method.name, REQUESTS[method.name])
    if method.group in rpc.ALWAYS_ON:
        assert reply == await ask(direct, method.name, REQUESTS[method.name])
    else:
        assert reply.code is grpc.StatusCode.PERMISSION_DENIED
        assert repr(method.group) in reply.details
        assert await front.metric("rpc_refused_total", group=method.group) == before + 1


@pytest.mark.parametrize("group", get_args(RpcGroup))
async def test_a_group_allows_its_own_rpcs_only(group: str, recorder: tuple[Recorder, str]) -> None:
    async with running(recorder[1], rpc={"allow": [group]}) as sidecar:
        for method in UNARY:
            reply = await ask(sidecar.channel, method.name, REQUESTS[method.name])
            allowed = method.group in {*rpc.ALWAYS_ON, group}
            denied = reply.code is grpc.StatusCode.PERMISSION_DENIED
            assert allowed is not denied, method.name


@pytest.mark.parametrize(
    "path", ["/inference.GRPCInferenceService/Nothing", "/other.Service/ModelInfer", "/x/y"]
)
async def test_unknown_methods_are_unimplemented(path: str, recorder: tuple[Recorder, str]) -> None:
    async with running(recorder[1]) as sidecar:
        call = sidecar.channel.unary_unary(path)(b"")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not recorder[0].of(path.rpartition("/")[2])


TABLE = np.array([[b"a", b""], [b"\x00\xff", b"long" * 99]], np.object_)
ERRORS = {
    "unknown model": infer_request({"image": IMAGE}, model="nonesuch"),
    "unknown version": infer_request({"image": IMAGE}, model="digits_like", version="7"),
    "unknown input": infer_request({"nope": IMAGE}, model="digits_like"),
    "no input": infer_request({}, model="digits_like"),
    "wrong shape": infer_request({"image": IMAGE[:, :, :5]}, model="digits_like"),
    "wrong datatype": infer_request({"image": IMAGE.astype("f8")}, model="digits_like"),
    "unknown output": infer_request({"image": IMAGE}, model="digits_like", outputs=["nope"]),
    "model error": infer_request({"image": IMAGE}, model="failing"),
    "decoupled": infer_request({"count": np.array([1], np.int32)}, model="repeat"),
}
ANSWERS = {
    "classifier": INFER,
    "one output": infer_request({"image": IMAGE}, model="digits_like", outputs=["logits"]),
    "with version": infer_request({"image": IMAGE}, model="digits_like", version="1"),
    "bytes": infer_request({"text": TABLE[0]}, model="identity_bytes"),
    "half": infer_request({"image": IMAGE.astype("f2")}, model="digits_like_fp16"),
    "empty batch axis": infer_request({"image": IMAGE[:1]}, model="identity_fp32"),
    "parameters": infer_request(
        {"image": IMAGE}, model="slow", parameters={"delay_ms": 1, "timeout": 10**9, "x": 0.5}
    ),
}


@pytest.mark.triton
@pytest.mark.parametrize("name", [*ERRORS, *ANSWERS])
async def test_inference_is_answered_as_by_triton(
    name: str, front: Running, direct: grpc.aio.Channel
) -> None:
    request = {**ERRORS, **ANSWERS}[name]
    through = await ask(front.channel, "ModelInfer", request)
    assert through == await ask(direct, "ModelInfer", request)
    assert (through.code is grpc.StatusCode.OK) is (name in ANSWERS)


@pytest.mark.triton
async def test_the_classification_extension_passes(
    front: Running, direct: grpc.aio.Channel
) -> None:
    request = infer_request({"image": IMAGE}, model="digits_like", outputs=["logits"])
    request.outputs[0].parameters["classification"].int64_param = 3
    through = await ask(front.channel, "ModelInfer", request)
    assert through == await ask(direct, "ModelInfer", request)
    assert b":" in through.data


async def test_request_bytes_are_forwarded_untouched(recorder: tuple[Recorder, str]) -> None:
    # Fields out of order, a repeated scalar, an unknown field: nothing protobuf would write itself.
    data = b"".join(
        (
            pb.ModelInferRequest(id="last").SerializeToString(),
            b"\xba\x3e\x03new",  # field 999, length-delimited
            INFER.SerializeToString(),
            pb.ModelInferRequest(id="last").SerializeToString(),
        )
    )
    async with running(recorder[1]) as sidecar:
        reply = await ask(sidecar.channel, "ModelInfer", data)
        assert reply.code is grpc.StatusCode.OK
        reply = await ask(sidecar.channel, "ModelMetadata", b"\xba\x3e\x03new")
        assert reply.code is grpc.StatusCode.OK
    assert recorder[0].of("ModelInfer")[0].data == data
    assert recorder[0].of("ModelMetadata")[-1].data == b"\xba\x3e\x03new"


SENT = (
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-twice", "1"),
    ("x-twice", "2"),
    ("x-blob-bin", b"\x00\xff\x80"),
    ("breakwater-verdict", "pass"),
    ("breakwater-request-id", "forged"),
)


@pytest.mark.parametrize("name", ["ModelInfer", "ModelMetadata"])
async def test_metadata_both_ways(name: str, recorder: tuple[Recorder, str]) -> None:
    returned = (("x-kind", "a"), ("x-kind", "b"), ("x-raw-bin", b"\x01\x00"))

    async def answer(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.send_initial_metadata((*returned, ("breakwater-verdict", "forged")))
        context.set_trailing_metadata((("breakwater-request-id", "forged"), *returned))
        return b"\x0a\x01m"

    recorder[0].answers[name] = answer
    async with running(recorder[1]) as sidecar:
        reply = await ask(sidecar.channel, name, REQUESTS[name], metadata=SENT)
    assert (reply.code, reply.data) == (grpc.StatusCode.OK, b"\x0a\x01m")
    assert (reply.initial, reply.trailing) == (returned, returned)
    call = recorder[0].of(name)[-1]
    assert call.values("x-twice") == ["1", "2"]
    assert call.values("x-blob-bin") == [b"\x00\xff\x80"]
    assert call.values("traceparent") == [SENT[0][1]]
    assert not [key for key, _ in call.metadata if key.startswith("breakwater-")]
    assert len(call.values("user-agent")) == 1


STATUS_DETAILS = (("grpc-status-details-bin", b"\x08\x08\x12\x04busy"), ("x-why", "queue"))


@pytest.mark.parametrize("scrub", [False, True])
@pytest.mark.parametrize("name", ["ModelInfer", "ModelMetadata"])
@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.CANCELLED]
)
async def test_upstream_errors_keep_everything_unless_scrubbed(
    name: str, code: grpc.StatusCode, scrub: bool, recorder: tuple[Recorder, str]
) -> None:
    async def fail(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(code, "régión /secret/shm is full", STATUS_DETAILS)
        return b""

    recorder[0].answers[name] = fail
    async with running(recorder[1], scrub_errors=scrub) as sidecar:
        reply = await ask(sidecar.channel, name, REQUESTS[name])
        await sidecar.idle()
    assert reply.code is code
    if scrub:
        assert reply.details == "the model server reported an error"
        assert reply.trailing == ()
    else:
        assert reply.details == "régión /secret/shm is full"
        assert reply.trailing == STATUS_DETAILS


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (b"", grpc.StatusCode.INVALID_ARGUMENT),
        (INFER.SerializeToString()[:-5], grpc.StatusCode.INVALID_ARGUMENT),
        (
            infer_request({"image": np.array([np.nan], np.float32)}, model="m"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (infer_request({}, model="../etc"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["garbage", "empty", "truncated", "nan", "path"],
)
async def test_what_is_not_valid_never_reaches_the_server(
    data: object, code: grpc.StatusCode, recorder: tuple[Recorder, str]
) -> None:
    async with running(recorder[1], non_finite="refuse") as sidecar:
        assert (await ask(sidecar.channel, "ModelInfer", data)).code is code
        await sidecar.idle()
    assert not recorder[0].of("ModelInfer")


class BrokenUpstream:
    """A defect of our own."""

    async def call(self, *_: object, **__: object) -> None:
        raise RuntimeError("/etc/secret is unreadable")

    def stream(self, *_: object, **__: object) -> None:
        raise RuntimeError("/etc/secret is unreadable")


async def test_a_defect_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    metrics, upstream, config = Metrics(), BrokenUpstream(), Config()
    audit = AuditLog(None, metrics.audit_dropped)
    pipeline = Pipeline(
        Parts(config, Defences(config, metrics).find),
        upstream=upstream,  # type: ignore[arg-type]
        batcher=None,
        metrics=metrics,
        audit=audit,
    )
    unpacker = Unpacker(1 << 20)
    service = TritonService(
        pipeline,
        upstream,
        metrics,
        unpacker=unpacker,
        waiting=Waiting(1),
        untaken=Untaken(1, lambda _: False),
    )  # type: ignore[arg-type]
    async with serving(service) as address, grpc.aio.insecure_channel(address) as channel:
        for name in ("ModelInfer", "ModelMetadata"):
            reply = await ask(channel, name, REQUESTS[name])
            assert (reply.code, reply.details) == (grpc.StatusCode.INTERNAL, "internal error")
        call = open_stream(channel)
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert await call.details() == "internal error"
    assert pipeline.in_flight == 0
    assert len(caplog.records) == 3
    await pipeline.close()
    audit.close()


@pytest.mark.triton
@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_accepted(
    compression: grpc.Compression, front: Running, direct: grpc.aio.Channel
) -> None:
    request = infer_request({"image": np.zeros((8, 3, 32, 32), np.float32)}, model="digits_like")
    through = await ask(front.channel, "ModelInfer", request, compression=compression)
    assert through == await ask(direct, "ModelInfer", request)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_answers_are_compressed_where_wanted(
    algorithm: str, recorder: tuple[Recorder, str]
) -> None:
    body = bytes(3_000_000)

    async def answer(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        return body

    recorder[0].answers["ModelInfer"] = answer
    async with (
        running(recorder[1], response_compression=algorithm) as sidecar,
        relayed(sidecar.address) as relay,
        grpc.aio.insecure_channel(relay.address) as channel,
    ):
        reply = await ask(channel, "ModelInfer", INFER)
    assert reply.data == body
    assert relay.received < len(body) / 10


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
async def test_messages_over_the_limit_are_refused(
    compression: grpc.Compression | None, recorder: tuple[Recorder, str]
) -> None:
    async def answer(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        return bytes(200_000)

    recorder[0].answers["ModelMetadata"] = answer
    large = infer_request({"image": np.zeros(50_000, np.float32)}, model="m")
    async with running(recorder[1], max_message_bytes=100_000) as sidecar:
        # Decompressed: what matters is what has to be held.
        reply = await ask(sidecar.channel, "ModelInfer", large, compression=compression)
        assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        reply = await ask(sidecar.channel, "ModelMetadata", REQUESTS["ModelMetadata"])
        assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await sidecar.idle()
    assert not recorder[0].of("ModelInfer")


async def test_a_hundred_megabytes_pass(recorder: tuple[Recorder, str]) -> None:
    async def echo(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        return call.data

    recorder[0].answers["ModelInfer"] = echo
    request = infer_request({"image": np.ones(25_000_000, np.float32)}, model="m")
    data = request.SerializeToString()
    async with running(recorder[1], non_finite="refuse") as sidecar:
        reply = await ask(sidecar.channel, "ModelInfer", data)
    assert reply.code is grpc.StatusCode.OK
    assert reply.data == data


async def test_overload_is_refused_at_once(recorder: tuple[Recorder, str]) -> None:
    release = asyncio.Event()

    async def wait(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await release.wait()
        return b""

    recorder[0].answers["ModelInfer"] = wait
    async with running(recorder[1], max_in_flight=2) as sidecar:
        held = [asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", INFER)) for _ in range(2)]
        await recorder[0].expect("ModelInfer", 2)
        for name in ("ModelInfer", "ModelMetadata"):
            reply = await ask(sidecar.channel, name, REQUESTS[name], timeout=5)
            assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        stream = open_stream(sidecar.channel)
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # Whoever asks whether we live must not be told that we are busy.
        assert (await ask(sidecar.channel, "ServerLive", b"")).code is grpc.StatusCode.OK
        release.set()
        assert [(await reply).code for reply in held] == [grpc.StatusCode.OK] * 2
        await sidecar.idle()
        assert (await ask(sidecar.channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK
        refused = await sidecar.metric("requests_total", outcome="overloaded")
    assert refused == 2
    assert len(recorder[0].of("ModelInfer")) == 3


async def test_health_questions_have_a_bound_of_their_own(recorder: tuple[Recorder, str]) -> None:
    async def never(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with running(recorder[1], max_in_flight=1) as sidecar:
        recorder[0].answers["ServerLive"] = never
        held = [asyncio.ensure_future(ask(sidecar.channel, "ServerLive", b"")) for _ in range(64)]
        await recorder[0].expect("ServerLive", 64)
        reply = await ask(sidecar.channel, "ServerLive", b"", timeout=5)
        assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await ask(sidecar.channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_the_principal_is_the_header_of_the_gateway(recorder: tuple[Recorder, str]) -> None:
    async with running(recorder[1], principal_header="X-Caller") as sidecar:
        reply = await ask(sidecar.channel, "ModelInfer", INFER, metadata=(("x-caller", "bob"),))
        assert reply.code is grpc.StatusCode.OK
    assert recorder[0].of("ModelInfer")[0].values("x-caller") == ["bob"]


# -- tritonclient ------------------------------------------------------------------------------


def _inputs(module: object = sync_client) -> list:
    tensor = module.InferInput("image", IMAGE.shape, "FP32")  # type: ignore[attr-defined]
    tensor.set_data_from_numpy(IMAGE)
    return [tensor]


def _use_sync_client(address: str, triton_address: str) -> None:
    with (
        sync_client.InferenceServerClient(address) as through,
        sync_client.InferenceServerClient(triton_address) as straight,
    ):
        assert through.is_server_live()
        assert through.is_server_ready()
        assert through.is_model_ready("digits_like")
        assert through.get_server_metadata() == straight.get_server_metadata()
        assert through.get_model_metadata("encoded") == straight.get_model_metadata("encoded")
        classes = [sync_client.InferRequestedOutput("logits", class_count=2)]
        for outputs in (None, classes):
            ours, theirs = (
                client.infer(
                    "digits_like",
                    _inputs(),
                    outputs=outputs,
                    compression_algorithm=algorithm,
                    headers={"x-team": "vision"},
                )
                for client, algorithm in ((through, "gzip"), (straight, None))
            )
            np.testing.assert_array_equal(ours.as_numpy("logits"), theirs.as_numpy("logits"))
        with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
            through.get_model_config("digits_like")
        totals = [
            through.infer(
                "sequence_sum",
                [_one_image(value)],
                sequence_id=41,
                sequence_start=value == 1,
                sequence_end=value == 3,
            ).as_numpy("steps")[0]
            for value in (1, 2, 3)
        ]
        assert totals == [1, 2, 3]


def _one_image(value: float) -> sync_client.InferInput:
    tensor = sync_client.InferInput("image", [3, 32, 32], "FP32")
    tensor.set_data_from_numpy(np.full((3, 32, 32), value / 4, np.float32))
    return tensor


@pytest.mark.triton
async def test_tritonclient_sync(front: Running, triton: EmbeddedTriton) -> None:
    await asyncio.to_thread(_use_sync_client, front.address, triton.grpc_address)


@pytest.mark.triton
async def test_tritonclient_aio(front: Running, direct: grpc.aio.Channel) -> None:
    async with aio_client.InferenceServerClient(front.address) as client:
        assert await client.is_model_ready("digits_like")
        answer = await client.infer("digits_like", _inputs(aio_client), request_id="7")
        expected = await ask(direct, "ModelInfer", INFER)
        response = pb.ModelInferResponse.FromString(expected.data)
        assert answer.get_response().id == "7"
        assert answer.as_numpy("logits").tobytes() == response.raw_output_contents[0]
        with pytest.raises(InferenceServerException, match="nonesuch"):
            await client.infer("nonesuch", _inputs(aio_client))


# -- Triton absent, slow, dying ------------------------------------------------------------------

UNREACHABLE = "the model server cannot be reached"


async def test_an_absent_server_is_unavailable_and_found_when_it_comes() -> None:
    async with recording() as (_, address):
        pass  # a port that was free a moment ago and is closed now
    async with running(address) as sidecar:
        for name in ("ModelInfer", "ModelMetadata", "ServerReady"):
            reply = await ask(sidecar.channel, name, REQUESTS[name])
            assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, UNREACHABLE)
        stream = open_stream(sidecar.channel)
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        assert await stream.details() == UNREACHABLE
        await sidecar.idle()


@pytest.mark.triton
async def test_a_stopped_triton_ends_requests_at_their_deadline(
    triton: EmbeddedTriton, direct: grpc.aio.Channel
) -> None:
    async with running(triton.grpc_address, upstream_timeout_s=0.3) as sidecar:
        os.kill(triton.pid, signal.SIGSTOP)
        try:
            for options in ({"timeout": 0.2}, {"timeout": None}):
                for name in ("ModelInfer", "ModelMetadata"):
                    reply = await ask(sidecar.channel, name, REQUESTS[name], **options)
                    assert reply.code is grpc.StatusCode.DEADLINE_EXCEEDED
            await sidecar.idle()
        finally:
            os.kill(triton.pid, signal.SIGCONT)
        reply = await ask(direct, "ModelInfer", INFER)
        assert reply.code is grpc.StatusCode.OK


@pytest.mark.triton
async def test_a_killed_triton_is_unavailable_until_it_is_back(triton: EmbeddedTriton) -> None:
    slow = infer_request({"image": IMAGE}, model="slow", parameters={"delay_ms": 5000})
    async with running(triton.grpc_address) as sidecar:
        asking = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", slow, timeout=None))
        stream = open_stream(sidecar.channel, timeout=None)
        await stream.write(slow.SerializeToString())
        await sidecar.busy(2)
        try:
            await asyncio.to_thread(triton.kill)
            reply = await asking
            assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, UNREACHABLE)
            assert await stream.code() is grpc.StatusCode.UNAVAILABLE
            assert await stream.details() == UNREACHABLE
            await sidecar.ready(wanted=False)
            reply = await ask(sidecar.channel, "ModelInfer", INFER)
            assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, UNREACHABLE)
        finally:
            await asyncio.to_thread(triton.restart)
        await sidecar.ready()
        reply = await ask(sidecar.channel, "ModelInfer", INFER)
        assert reply.code is grpc.StatusCode.OK
        await sidecar.idle()
