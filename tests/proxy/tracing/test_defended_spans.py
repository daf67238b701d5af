"""Spans of defended requests to a real Triton: each stage, each call, in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from proxy.pb import open_inference_pb2 as pb
from tests.defended import Opener, settings_of
from tests.images import benign, request, tampered
from tests.proxy.running import Running, ask, open_stream, running, until
from tests.proxy.tracing.collector import CLIENT, Collector, Span, collecting
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

CLEAN = benign(1, 5)
MODEL = "digits_like"


async def recorded(
    triton: EmbeddedTriton,
    calibrations: Path,
    message: pb.ModelInferRequest,
    **fields: Any,
) -> Collector:
    """What a collector is sent of one request to a model defended like this."""
    models: Mapping[str, Mapping[str, Any]] = {message.model_name: fields}
    settings = settings_of(calibrations, models)
    async with (
        collecting() as found,
        running(triton.grpc_address, models=settings, tracing=found.settings) as sidecar,
    ):
        reply = await ask(sidecar.channel, "ModelInfer", message)
        assert reply.code is grpc.StatusCode.OK, reply.details
        if fields.get("mode") == "observe":
            await until(lambda: _is_scored(sidecar))
    return found.collector


async def _is_scored(sidecar: Running) -> bool:
    return await sidecar.metric("samples_total") >= 1


def one(spans: list[Span]) -> Span:
    (span,) = spans
    return span


@pytest.mark.parametrize("dispatch", ["speculative", "sequential"])
async def test_every_stage_of_a_suspicious_request_is_there(
    triton: EmbeddedTriton, calibrations: Path, dispatch: str
) -> None:
    found = await recorded(
        triton,
        calibrations,
        request(MODEL, tampered(CLEAN)),
        dispatch=dispatch,
        action="purify",
    )
    root = one(found.roots())
    children = found.children(root)
    assert {child.trace_id for child in children} == {root.trace_id}
    names = {child.purpose for child in children}
    assert {"read", "queue", "score", "query", "views", "purify", "upstream"} <= names
    assert all(child in root for child in children if child.kind != CLIENT)
    # The client's own message went for nothing (its answer was evidence all the same); then the
    # purified one.
    purify, calls = one(found.named("purify")), found.named("upstream")
    first, last = sorted(calls, key=lambda span: span.start_ns)
    assert first.end_ns <= purify.start_ns
    assert purify.end_ns <= last.start_ns
    score = min(found.named("score"), key=lambda span: span.start_ns)
    read = one(found.named("read"))
    assert read.end_ns <= min(score.start_ns, first.start_ns)
    if dispatch == "speculative":
        assert first.start_ns < score.end_ns
    else:
        assert first.start_ns >= score.end_ns
    assert root.attributes["breakwater.verdict"] == "suspicious"
    assert root.attributes["breakwater.action"] == "purify"
    assert root.attributes["breakwater.p_value"] in ("0.01..0.1", "0.001..0.01", "..0.001")


async def test_a_clean_request_is_judged_and_passed(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    found = await recorded(triton, calibrations, request("digits_like_fp16", CLEAN))
    root = one(found.roots())
    assert root.attributes["breakwater.verdict"] == "pass"
    assert root.attributes["breakwater.action"] == "none"
    assert len(found.named("upstream")) == 1
    assert one(found.named("score")) in root


async def test_an_observed_request_is_scored_in_a_span_beside_it(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    found = await recorded(triton, calibrations, request(MODEL, CLEAN), mode="observe")
    root = one(found.roots())
    observe = one(found.named("observe"))
    assert observe.parent_id == root.span_id
    assert observe.attributes["breakwater.outcome"] == "observed"
    assert "breakwater.verdict" in observe.attributes
    assert "breakwater.verdict" not in root.attributes
    inner = found.children(observe)
    assert {"score", "query"} <= {span.purpose for span in inner}
    assert one(found.named("upstream")).parent_id == root.span_id


async def test_a_block_is_told_to_the_operator_alone(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    settings = settings_of(calibrations, {MODEL: {"action": "block"}})
    async with (
        collecting() as found,
        running(triton.grpc_address, models=settings, tracing=found.settings) as sidecar,
    ):
        reply = await ask(sidecar.channel, "ModelInfer", request(MODEL, tampered(CLEAN)))
    root = one(found.collector.roots())
    assert root.attributes["breakwater.outcome"] == "blocked"
    assert root.attributes["rpc.grpc.status_code"] == reply.code.value[0]
    assert not [key for key, _ in (*reply.initial, *reply.trailing) if "breakwater" in key]


async def test_a_message_of_a_stream_shows_its_stages(
    triton: EmbeddedTriton, calibrations: Path
) -> None:
    settings = settings_of(calibrations, {MODEL: {"action": "purify"}})
    async with (
        collecting() as found,
        running(triton.grpc_address, models=settings, tracing=found.settings) as sidecar,
    ):
        stream = open_stream(sidecar.channel)
        await stream.write(request(MODEL, tampered(CLEAN)).SerializeToString())
        assert await stream.read() is not grpc.aio.EOF
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    collector = found.collector
    message = one(collector.named("stream message"))
    assert message.parent_id == one(collector.roots()).span_id
    names = {span.purpose for span in collector.children(message)}
    assert {"read", "score", "query", "purify"} <= names
    assert "upstream" not in names
    assert message.attributes["breakwater.verdict"] == "suspicious"


async def test_without_tracing_the_proxys_own_queries_carry_the_clients_context(
    opened: Opener,
) -> None:
    context = (("traceparent", f"00-{7:032x}-{7:016x}-01"), ("baggage", "a=1"))
    async with opened({MODEL: {"action": "purify"}}) as d:
        await d.infer(request(MODEL, tampered(CLEAN)), metadata=context)
        assert d.flow.trace is None
        assert d.upstream.sent["own"]
        assert set(d.upstream.metadata) == {context}
