"""Requests through a running sidecar, and what a real collector is sent of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proxy.config import Config
from proxy.errors import ConfigError
from proxy.pb import open_inference_pb2 as pb
from proxy.server import Server
from proxy.tracing.tracing import read_headers
from tests.builders import infer_request
from tests.proxy.running import Call, Recorder, Running, ask, open_stream, running
from tests.proxy.tracing.collector import CLIENT, SERVER, Collecting, collecting

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
REQUEST = infer_request({"x": np.ones((1, 3), np.float32)}, model="m", request_id="mine")
OURS = (("traceparent", SAMPLED), ("tracestate", "v=1"), ("baggage", "user=1"), ("x-a", "1"))


async def sent(
    found: Collecting, recorder: tuple[Recorder, str], *requests: tuple[Any, ...]
) -> list[Call]:
    """Requests with this metadata each through a recording sidecar, and how they came through."""
    server, address = recorder
    async with running(address, tracing=found.settings) as sidecar:
        for metadata in requests:
            await ask(sidecar.channel, "ModelInfer", REQUEST, metadata=metadata)
    return server.of("ModelInfer")


def parent_of(call: Call) -> str:
    """The trace context that a call came with, which is a valid one."""
    (value,) = call.values("traceparent")
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", str(value))
    return str(value)


# -- off -------------------------------------------------------------------------------------------


async def test_without_tracing_the_clients_context_passes_as_it_is(
    recorder: tuple[Recorder, str],
) -> None:
    hostile = (("traceparent", "x"), ("tracestate", "y" * 2000), ("baggage", "=;,"))
    server, address = recorder
    server.stream = _answering
    async with running(address) as sidecar:
        for metadata in (OURS, hostile):
            await ask(sidecar.channel, "ModelInfer", REQUEST, metadata=metadata)
            stream = open_stream(sidecar.channel, metadata=metadata)
            await stream.write(REQUEST.SerializeToString())
            await stream.done_writing()
            assert await stream.read() is not grpc.aio.EOF
            assert await stream.read() is grpc.aio.EOF
    for name in ("ModelInfer", "ModelStreamInfer"):
        for call, metadata in zip(server.of(name), (OURS, hostile), strict=True):
            kept = [pair for pair in call.metadata if pair[0] in dict(metadata)]
            assert sorted(kept) == sorted(metadata)
            assert not call.data or call.data == REQUEST.SerializeToString()


async def _answering(call: Call, context: grpc.aio.ServicerContext) -> None:
    while (data := await context.read()) is not grpc.aio.EOF:
        call.messages.append(data)
        await context.write(
            pb.ModelStreamInferResponse(
                infer_response=pb.ModelInferResponse(model_name="m")
            ).SerializeToString()
        )


# -- one request -----------------------------------------------------------------------------------


async def test_a_request_becomes_a_tree_of_spans(recorder: tuple[Recorder, str]) -> None:
    async with collecting() as found:
        (call,) = await sent(found, recorder, OURS)
    (request,) = found.collector.roots()
    read, upstream = found.collector.children(request)
    assert (request.trace_id, request.parent_id, request.kind) == (TRACE, SPAN, SERVER)
    assert request.name == "inference.GRPCInferenceService/ModelInfer"
    assert (read.name, upstream.purpose, upstream.kind) == ("read", "upstream", CLIENT)
    assert read in request
    assert upstream in request
    assert read.end_ns <= upstream.start_ns
    assert parent_of(call)[:-2] == f"00-{TRACE}-{upstream.span_id}-"
    assert call.values("tracestate") == ["v=1"]
    assert call.values("baggage") == ["user=1"]
    assert call.values("x-a") == ["1"]
    assert call.data == REQUEST.SerializeToString()


async def test_a_span_says_what_the_operator_wants_to_know(recorder: tuple[Recorder, str]) -> None:
    async with collecting(service_name="edge") as found:
        await sent(found, recorder, ())
    (request,) = found.collector.roots()
    says = request.attributes
    assert says["rpc.system"] == "grpc"
    assert says["rpc.method"] == "ModelInfer"
    assert says["rpc.grpc.status_code"] == 0
    assert says["breakwater.model"] == "m"
    assert says["breakwater.outcome"] == "ok"
    assert says["breakwater.unscored"] == "unlisted_model"
    assert says["breakwater.read_ms"] > 0
    assert "mine" not in says.values()
    assert not [value for value in says.values() if "127.0.0.1" in str(value)]
    assert request.resource["service.name"] == "edge"
    assert "breakwater.worker" not in request.resource


async def test_a_workers_spans_say_which_one(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    async with collecting() as found:
        settings = {"upstream": recorder[1], "listen": "127.0.0.1:0", "tracing": found.settings}
        server = Server(Config.model_validate(settings), admin=tmp_path / "worker-1.sock")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(server.address) as channel:
                await ask(channel, "ModelInfer", REQUEST)
        finally:
            await server.stop(grace_s=0)
    (request,) = found.collector.roots()
    assert request.resource["breakwater.worker"] == "worker-1"


async def test_attributes_of_the_environment_are_taken_over(
    recorder: tuple[Recorder, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=pod-1")
    async with collecting(client_ids=True) as found:
        await sent(found, recorder, ())
    (request,) = found.collector.roots()
    assert request.resource["k8s.pod.name"] == "pod-1"
    assert request.attributes["breakwater.client_request_id"] == "mine"


async def test_the_caller_is_told_nothing_of_traces(recorder: tuple[Recorder, str]) -> None:
    async with collecting() as found, running(recorder[1], tracing=found.settings) as sidecar:
        reply = await ask(sidecar.channel, "ModelInfer", REQUEST, metadata=OURS)
    assert not [key for key, _ in (*reply.initial, *reply.trailing) if "trace" in key]


# -- who is recorded -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "same_trace"),
    [((), False), ((("traceparent", UNSAMPLED), ("tracestate", "v=1")), True)],
)
async def test_what_is_not_recorded_still_has_a_context(
    recorder: tuple[Recorder, str], metadata: tuple[tuple[str, str], ...], same_trace: bool
) -> None:
    async with collecting(sample_ratio=0.0) as found:
        (call,) = await sent(found, recorder, metadata)
    assert found.collector.spans == []
    parent = parent_of(call)
    assert int(parent[-2:], 16) & 1 == 0
    assert (TRACE in parent) is same_trace
    assert call.values("tracestate") == [v for k, v in metadata if k == "tracestate"]


@pytest.mark.parametrize(
    "hostile",
    [
        (("traceparent", "00-zz-1-01"), ("tracestate", "v=1")),
        (("traceparent", SAMPLED), ("traceparent", SAMPLED)),
        (("traceparent", f"00-{'0' * 32}-{SPAN}-01"),),
        (("traceparent", SAMPLED + "-01-" + "a" * 3000),),
    ],
)
async def test_a_malformed_context_begins_a_new_trace(
    recorder: tuple[Recorder, str], hostile: tuple[tuple[str, str], ...]
) -> None:
    async with collecting() as found:
        (call,) = await sent(found, recorder, hostile)
    (request,) = found.collector.roots()
    assert (request.parent_id, request.trace_id == TRACE) == ("", False)
    assert request.trace_id in parent_of(call)
    assert call.values("tracestate") == []


async def test_a_huge_tracestate_does_not_go_on(recorder: tuple[Recorder, str]) -> None:
    states = [("tracestate", f"k{i}=" + "v" * 100) for i in range(30)]
    async with collecting() as found:
        (call,) = await sent(found, recorder, (("traceparent", SAMPLED), *states))
    assert TRACE in parent_of(call)
    assert call.values("tracestate") == []


async def test_callers_cannot_have_more_recorded_than_the_bound(
    recorder: tuple[Recorder, str],
) -> None:
    async with collecting(sample_ratio=0.0, max_per_second=0.001) as found:
        calls = await sent(found, recorder, *[OURS] * 5)
    assert len(found.collector.roots()) == 1
    assert [int(parent_of(call)[-2:], 16) & 1 for call in calls] == [1, 0, 0, 0, 0]
    assert all(TRACE in parent_of(call) for call in calls)


# -- what goes wrong -------------------------------------------------------------------------------


async def test_an_error_of_the_model_server_is_seen_on_both_spans(
    recorder: tuple[Recorder, str],
) -> None:
    async def fail(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "secret text")
        raise AssertionError

    recorder[0].answers["ModelInfer"] = fail
    async with collecting() as found:
        await sent(found, recorder, ())
    (request,) = found.collector.roots()
    (upstream,) = found.collector.named("upstream")
    for span in (request, upstream):
        assert (span.status, span.attributes["rpc.grpc.status_code"]) == (2, 13)
        assert "secret" not in str(span)
    assert request.attributes["breakwater.outcome"] == "upstream_error"


async def test_an_invalid_request_is_the_callers_error(recorder: tuple[Recorder, str]) -> None:
    async with collecting() as found, running(recorder[1], tracing=found.settings) as sidecar:
        await ask(sidecar.channel, "ModelInfer", b"\xff")
    (request,) = found.collector.spans
    assert request.attributes["rpc.grpc.status_code"] == 3
    assert (request.status, request.attributes["breakwater.outcome"]) == (0, "invalid_request")


async def _hang(call: Call, context: grpc.aio.ServicerContext) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_client_that_goes_away_ends_its_spans(recorder: tuple[Recorder, str]) -> None:
    recorder[0].answers["ModelInfer"] = _hang
    async with collecting() as found, running(recorder[1], tracing=found.settings) as sidecar:
        task = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", REQUEST))
        await recorder[0].expect("ModelInfer")
        task.cancel()
        await sidecar.idle()
    (request,) = found.collector.roots()
    assert request.attributes["breakwater.outcome"] == "cancelled"
    assert request.attributes["rpc.grpc.status_code"] == 1
    assert found.collector.named("upstream")[0].attributes["rpc.grpc.status_code"] == 1


async def test_a_deadline_that_passes_is_told_as_one(recorder: tuple[Recorder, str]) -> None:
    recorder[0].answers["ModelInfer"] = _hang
    async with collecting() as found, running(recorder[1], tracing=found.settings) as sidecar:
        await ask(sidecar.channel, "ModelInfer", REQUEST, timeout=0.2)
        await sidecar.idle()
    (request,) = found.collector.roots()
    assert request.attributes["rpc.grpc.status_code"] == 4
    assert request.status == 2


async def test_a_request_that_is_one_too_many_is_seen(recorder: tuple[Recorder, str]) -> None:
    recorder[0].answers["ModelInfer"] = _hang
    async with (
        collecting() as found,
        running(recorder[1], tracing=found.settings, max_in_flight=1) as sidecar,
    ):
        task = asyncio.ensure_future(ask(sidecar.channel, "ModelInfer", REQUEST))
        await recorder[0].expect("ModelInfer")
        await ask(sidecar.channel, "ModelInfer", REQUEST)
        task.cancel()
        await sidecar.idle()
    outcomes = {span.attributes["breakwater.outcome"] for span in found.collector.roots()}
    assert outcomes == {"overloaded", "cancelled"}


# -- streams ---------------------------------------------------------------------------------------


async def _messages(sidecar: Running, count: int, bad: bytes | None = None) -> None:
    stream = open_stream(sidecar.channel, metadata=OURS)
    for _ in range(count):
        await stream.write(REQUEST.SerializeToString())
        assert await stream.read() is not grpc.aio.EOF
    if bad is not None:
        await stream.write(bad)
        assert await stream.read() is not grpc.aio.EOF
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_a_stream_has_a_span_for_each_of_its_messages(
    recorder: tuple[Recorder, str],
) -> None:
    recorder[0].stream = _answering
    async with collecting() as found, running(recorder[1], tracing=found.settings) as sidecar:
        await _messages(sidecar, 3, bad=b"\xff")
    (stream,) = found.collector.roots()
    assert (stream.trace_id, stream.parent_id) == (TRACE, SPAN)
    assert stream.name == "inference.GRPCInferenceService/ModelStreamInfer"
    assert stream.attributes["breakwater.outcome"] == "ok"
    call, *messages = found.collector.children(stream)
    assert call.purpose == "stream"
    assert [message.name for message in messages] == ["stream message"] * 4
    codes = [message.attributes["rpc.grpc.status_code"] for message in messages]
    assert codes == [0, 0, 0, 3]
    assert all(child in stream for child in (call, *messages))
    assert [each.name for each in found.collector.children(messages[0])] == ["read"]
    assert call.span_id in parent_of(recorder[0].of("ModelStreamInfer")[0])


async def test_a_stream_records_no_more_messages_than_it_may(
    recorder: tuple[Recorder, str],
) -> None:
    recorder[0].stream = _answering
    async with (
        collecting(max_per_second=0.001) as found,
        running(recorder[1], tracing=found.settings) as sidecar,
    ):
        await _messages(sidecar, 5)
    (stream,) = found.collector.roots()
    assert [span.purpose for span in found.collector.children(stream)] == ["stream"]
    assert recorder[0].of("ModelStreamInfer")[0].messages == [REQUEST.SerializeToString()] * 5


async def test_a_stream_that_is_not_recorded_still_has_a_context(
    recorder: tuple[Recorder, str],
) -> None:
    recorder[0].stream = _answering
    async with (
        collecting(sample_ratio=0.0, parent_based=False) as found,
        running(recorder[1], tracing=found.settings) as sidecar,
    ):
        await _messages(sidecar, 2)
    assert found.collector.spans == []
    (call,) = recorder[0].of("ModelStreamInfer")
    assert TRACE in parent_of(call)
    assert call.values("baggage") == ["user=1"]


# -- the collector ---------------------------------------------------------------------------------


async def test_without_a_collector_requests_are_answered_and_spans_counted(
    recorder: tuple[Recorder, str],
) -> None:
    settings = {"endpoint": "http://127.0.0.1:1", "sample_ratio": 1.0}
    async with running(recorder[1], tracing=settings) as sidecar:
        for _ in range(3):
            reply = await ask(sidecar.channel, "ModelInfer", REQUEST)
            assert reply.code is grpc.StatusCode.OK
        async with asyncio.timeout(8):
            await sidecar.server.stop(grace_s=0)
        assert await sidecar.metric("spans_dropped_total") == 9


async def test_a_collector_that_refuses_loses_spans_and_no_requests(
    recorder: tuple[Recorder, str],
) -> None:
    async with collecting() as found:
        found.collector.refusal = grpc.StatusCode.PERMISSION_DENIED
        async with running(recorder[1], tracing=found.settings) as sidecar:
            reply = await ask(sidecar.channel, "ModelInfer", REQUEST)
            assert reply.code is grpc.StatusCode.OK
            await found.collector.asked.wait()
            await sidecar.server.stop(grace_s=0)
            assert await sidecar.metric("spans_dropped_total") == 3


async def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(
    recorder: tuple[Recorder, str],
) -> None:
    async with collecting(queue=64) as found:
        found.collector.gate.clear()
        async with running(recorder[1], tracing=found.settings) as sidecar:
            await ask(sidecar.channel, "ModelInfer", REQUEST)
            await found.collector.asked.wait()
            for _ in range(50):
                reply = await ask(sidecar.channel, "ModelInfer", REQUEST)
                assert reply.code is grpc.StatusCode.OK
            assert await sidecar.metric("spans_dropped_total") > 0
            async with asyncio.timeout(8):
                await sidecar.server.stop(grace_s=0)


async def test_the_collector_is_shown_the_key(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    headers = tmp_path / "headers"
    headers.write_text("Authorization: Bearer abc:def\n\n x-tenant : one\n")
    async with collecting(headers_file=headers) as found:
        await sent(found, recorder, ())
    assert found.collector.metadata[0]["authorization"] == "Bearer abc:def"
    assert found.collector.metadata[0]["x-tenant"] == "one"


@pytest.mark.parametrize(
    "text",
    [
        *("no colon", ": value", "name:", "na me: x", "näme: x", "name: wért"),
        *("grpc-x: 1", "x-bin: 1", "name: a\x07b", "a: b\n" * 5000),
    ],
)
def test_a_file_that_holds_no_headers_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "headers"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"tracing\.headers_file") as failure:
        read_headers(path)
    assert "wért" not in str(failure.value)


@pytest.mark.parametrize("field", ["headers_file", "ca_file"])
async def test_a_file_that_is_not_there_is_named(field: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    tracing = {"endpoint": "https://127.0.0.1:1", field: missing}
    with pytest.raises(ConfigError, match=rf"tracing\.{field}.*missing"):
        Server(Config.model_validate({"tracing": tracing}))


async def test_opentelemetry_can_be_switched_off_by_its_own_variable(
    recorder: tuple[Recorder, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with collecting() as found:
        plain, other = await sent(found, recorder, (), OURS)
    assert found.collector.spans == []
    assert plain.values("traceparent") == []
    assert TRACE in parent_of(other)
