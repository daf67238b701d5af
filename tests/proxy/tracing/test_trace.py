"""The spans of one request, from the stages it went through."""

from __future__ import annotations

import asyncio
import time

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy.budget import count_as_queued, timed
from proxy.errors import Blocked, InvalidRequest, ProxyError, UpstreamError, UpstreamUnavailable
from proxy.flow import Flow
from proxy.tracing.sampling import sampler
from proxy.tracing.trace import MOST_SPANS, RequestTrace


class Subject:
    """A flow that is being recorded, and the spans that came of it."""

    def __init__(self, per_second: float = 1000) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(
            sampler=sampler(1.0, per_second, parent_based=True), shutdown_on_exit=False
        )
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        tracer = provider.get_tracer("t")
        now = time.monotonic()
        offset_ns = time.time_ns() - int(now * 1e9)
        span = tracer.start_span(
            "request", Context(), SpanKind.SERVER, start_time=int(now * 1e9) + offset_ns
        )
        self.trace = RequestTrace(tracer, span, [("a", "b")], offset_ns, client_ids=False)
        self.flow = Flow("r", now, None, "p", trace=self.trace)

    def finished(self, outcome: str = "ok") -> dict[str, ReadableSpan]:
        self.flow.outcome = outcome
        self.trace.finish(self.flow)
        return {span.name: span for span in self.exporter.get_finished_spans()}


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


def within(outer: ReadableSpan, inner: ReadableSpan) -> bool:
    return times(outer)[0] <= times(inner)[0] <= times(inner)[1] <= times(outer)[1]


def test_stages_are_children_in_their_order_and_within_the_request() -> None:
    subject = Subject()
    for name in ("read", "history"):
        with timed(subject.flow, name):
            pass
    spans = subject.finished()
    request = spans["request"]
    assert request.attributes is not None
    assert request.context is not None
    for name in ("read", "history"):
        assert spans[name].parent is not None
        assert spans[name].parent.span_id == request.context.span_id  # type: ignore[union-attr]
        assert within(request, spans[name])
    assert times(spans["read"])[1] <= times(spans["history"])[0]
    assert request.attributes["breakwater.read_ms"] == round(1000 * subject.flow.stage_s["read"], 3)


def test_time_in_the_queue_is_a_stage_of_its_own_before_the_score() -> None:
    subject = Subject()
    started = time.monotonic() - 1e-3
    count_as_queued(subject.flow, 1e-4)
    subject.trace.stage("score", started)
    spans = subject.finished()
    queue, score = spans["queue"], spans["score"]
    assert times(queue)[1] == times(score)[0]
    assert times(queue)[1] - times(queue)[0] == pytest.approx(1e5, abs=2000)


def test_a_call_sends_its_own_id_and_keeps_the_rest() -> None:
    subject = Subject()
    with subject.flow.calling("upstream", None) as metadata:
        assert metadata is not None
        along = dict(metadata)
    call = subject.finished()["inference.GRPCInferenceService/ModelInfer"]
    assert call.kind is SpanKind.CLIENT
    assert call.context is not None
    assert along["a"] == "b"
    assert f"{call.context.trace_id:032x}-{call.context.span_id:016x}-0" in str(
        along["traceparent"]
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamError(5, "secret"), 5),
        (UpstreamUnavailable("secret"), 14),
        (asyncio.CancelledError(), 1),
        (ValueError("secret"), 13),
    ],
)
def test_a_call_that_fails_says_how_and_not_why(error: BaseException, code: int) -> None:
    subject = Subject()
    with pytest.raises(type(error)), subject.flow.calling("query", None):
        raise error
    (call,) = subject.exporter.get_finished_spans()
    assert call.attributes is not None
    assert call.attributes["rpc.grpc.status_code"] == code
    assert call.status.status_code is StatusCode.ERROR
    assert "secret" not in call.to_json()


@pytest.mark.parametrize(
    ("error", "code", "is_error"),
    [
        (Blocked("secret"), 14, True),
        (InvalidRequest("secret"), 3, False),
        (UpstreamError(5, "secret"), 5, False),
        (UpstreamError(13, "secret"), 13, True),
    ],
)
def test_a_request_that_fails_says_how(error: ProxyError, code: int, is_error: bool) -> None:
    subject = Subject()
    subject.trace.failed(error)
    request = subject.finished(error.kind)["request"]
    assert request.attributes is not None
    assert request.attributes["rpc.grpc.status_code"] == code
    assert request.attributes["breakwater.outcome"] == error.kind
    assert (request.status.status_code is StatusCode.ERROR) is is_error
    assert "secret" not in request.to_json()


def test_an_answer_that_waits_for_the_verdict_shows_for_how_long() -> None:
    subject = Subject()
    started = time.monotonic()
    with subject.flow.calling("upstream", None):
        pass
    subject.trace.stage("score", started)
    spans = subject.finished()
    wait, score = spans["wait_for_verdict"], spans["score"]
    call = spans["inference.GRPCInferenceService/ModelInfer"]
    assert times(call)[1] <= times(wait)[0] < times(wait)[1] == times(score)[1]


def test_a_verdict_that_comes_first_makes_no_answer_wait() -> None:
    subject = Subject()
    with timed(subject.flow, "score"):
        pass
    with subject.flow.calling("upstream", None):
        pass
    assert "wait_for_verdict" not in subject.finished()


def test_no_request_makes_more_spans_than_are_allowed() -> None:
    subject = Subject()
    for _ in range(200):
        subject.trace.stage("score", time.monotonic())
        with subject.flow.calling("query", None) as metadata:
            assert metadata is not None
            assert dict(metadata)["traceparent"]
    subject.finished()
    assert len(subject.exporter.get_finished_spans()) <= MOST_SPANS + 2


def test_messages_of_a_stream_are_recorded_as_often_as_may_be() -> None:
    subject = Subject(per_second=3)
    found = [subject.trace.message(time.monotonic()) for _ in range(10)]
    assert [trace is not None for trace in found[:2]] == [True, True]  # the stream was the first
    assert not any(found[5:])


def test_work_beside_a_request_may_end_after_it() -> None:
    subject = Subject()
    beside = subject.trace.beside("observe")
    assert beside is not None
    subject.finished()
    beside.stage("score", time.monotonic())
    beside.finish(Flow("r", 0.0, None, "p", outcome="observed"))
    spans = {span.name: span for span in subject.exporter.get_finished_spans()}
    assert spans["observe"].parent == spans["request"].context
    assert spans["score"].parent == spans["observe"].context
