"""The spans of one recorded request.

Stages are noted as they end, which costs a tuple each, and become spans when the request is
finished. Calls to the model server become spans at once, since their ids go along with them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from proxy.errors import ProxyError, UpstreamError
from proxy.flow import Flow
from proxy.rpc import INFER, STREAM_INFER
from proxy.status import status_of
from proxy.tracing import attributes
from proxy.tracing.context import onward
from proxy.upstream import Metadata

MOST_SPANS = 62
"""Children of one request's span; further ones are left out. Two more are made at its end."""

_CANCELLED = 1
_UPSTREAM = "upstream"
_STREAM = "stream"
_VERDICT_STAGES = ("queue", "score", "history", "views", "purify")
"""Stages that an answer may have waited for."""


class RequestTrace:
    """Records one request, stream, or message of a stream.

    Args:
        tracer: makes spans.
        span: the request's own, which is being recorded.
        rest: the client's metadata without its trace context.
        offset_ns: from `time.monotonic()` to the time of day, nanoseconds.
        client_ids: put clients' own request ids on spans.
    """

    __slots__ = (
        "_answered_s",
        "_client_ids",
        "_code",
        "_context",
        "_count",
        "_offset_ns",
        "_queued_s",
        "_rest",
        "_span",
        "_stages",
        "_tracer",
        "metadata",
    )

    def __init__(
        self, tracer: Tracer, span: Span, rest: Metadata, offset_ns: int, *, client_ids: bool
    ) -> None:
        self.metadata = onward(rest, span.get_span_context())
        """The client's, with this request's span as the caller."""
        self._tracer = tracer
        self._span = span
        self._rest = rest
        self._offset_ns = offset_ns
        self._client_ids = client_ids
        self._context: Context = set_span_in_context(span, Context())
        self._stages: list[tuple[str, float, float]] = []
        self._count = 0
        self._queued_s = 0.0
        self._answered_s: float | None = None
        self._code: int | None = None

    # -- while it runs ---------------------------------------------------------------------------

    def stage(self, name: str, started_s: float) -> None:
        """A stage that has just ended."""
        now = time.monotonic()
        if name == _UPSTREAM:  # has a span of its own, which the model server knows
            return
        if self._queued_s:
            queued_s, self._queued_s = self._queued_s, 0.0
            begun_s = min(now, started_s + queued_s)
            self._note("queue", started_s, begun_s)
            started_s = begun_s
        self._note(name, started_s, now)

    def queued(self, seconds: float) -> None:
        """Of the stage that is about to end, this much at its start was spent in a queue."""
        self._queued_s = seconds

    def note(self, key: str, value: attributes.Value) -> None:
        """A fact of the request."""
        self._span.set_attribute(f"breakwater.{key}", value)

    def failed(self, error: ProxyError) -> None:
        """What the request ends with."""
        self._code = _code(error)

    def calling(self, purpose: str) -> AbstractContextManager[Metadata]:
        """A call to the model server while inside; gives the metadata to send along.

        Args:
            purpose: upstream (the client's own request), query (one of the proxy's) or stream.
        """
        if self._count >= MOST_SPANS:
            return nullcontext(self.metadata)
        self._count += 1
        path = (STREAM_INFER if purpose == _STREAM else INFER).path
        span = self._tracer.start_span(
            path.strip("/"),
            self._context,
            SpanKind.CLIENT,
            attributes.of_method(path) | {"breakwater.purpose": purpose},
            start_time=self._ns(time.monotonic()),
        )
        return _Call(self, span, onward(self._rest, span.get_span_context()), purpose)

    def message(self, arrival_s: float) -> RequestTrace | None:
        """Records one message of this stream; None where that would be one too many a second."""
        return self._child("stream message", SpanKind.SERVER, arrival_s)

    def beside(self, name: str) -> RequestTrace | None:
        """Records work on the request beside it, which may go on when it is finished."""
        return self._child(name, SpanKind.INTERNAL, time.monotonic())

    # -- at its end ------------------------------------------------------------------------------

    def finish(self, flow: Flow) -> None:
        """The request is over: make its spans, with what the flow says."""
        now = time.monotonic()
        self._wait_for_verdict()
        for name, started_s, ended_s in self._stages:
            span = self._tracer.start_span(name, self._context, start_time=self._ns(started_s))
            span.end(self._ns(ended_s))
        span = self._span
        span.set_attributes(attributes.of_flow(flow, client_id=self._client_ids))
        code = attributes.code_of(flow.outcome) if self._code is None else self._code
        span.set_attribute("rpc.grpc.status_code", code)
        if attributes.is_server_error(code):
            span.set_attribute("error.type", flow.outcome)
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(now))

    # -- parts -----------------------------------------------------------------------------------

    def _note(self, name: str, started_s: float, ended_s: float) -> None:
        if self._count < MOST_SPANS:
            self._count += 1
            self._stages.append((name, started_s, ended_s))

    def _wait_for_verdict(self) -> None:
        """A stage more where the model's answer was there first, and had to wait."""
        answered_s = self._answered_s
        if answered_s is None:
            return
        ends = [ended_s for name, _, ended_s in self._stages if name in _VERDICT_STAGES]
        if ends and max(ends) > answered_s:
            self._stages.append(("wait_for_verdict", answered_s, max(ends)))

    def _child(self, name: str, kind: SpanKind, started_s: float) -> RequestTrace | None:
        span = self._tracer.start_span(name, self._context, kind, start_time=self._ns(started_s))
        if not span.is_recording():
            return None
        return RequestTrace(
            self._tracer, span, self._rest, self._offset_ns, client_ids=self._client_ids
        )

    def _ended(self, span: Span, purpose: str, error: BaseException | None) -> None:
        """A call has ended."""
        now = time.monotonic()
        code = 0 if error is None else _code(error)
        span.set_attribute("rpc.grpc.status_code", code)
        if code:
            span.set_status(Status(StatusCode.ERROR))
        elif purpose == _UPSTREAM:
            self._answered_s = now
        span.end(self._ns(now))

    def _ns(self, monotonic_s: float) -> int:
        return int(monotonic_s * 1e9) + self._offset_ns


class _Call(AbstractContextManager[Metadata]):
    """One call to the model server."""

    __slots__ = ("_metadata", "_purpose", "_span", "_trace")

    def __init__(self, trace: RequestTrace, span: Span, metadata: Metadata, purpose: str) -> None:
        self._trace = trace
        self._span = span
        self._metadata = metadata
        self._purpose = purpose

    def __enter__(self) -> Metadata:
        return self._metadata

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._trace._ended(self._span, self._purpose, error)


def _code(error: BaseException) -> int:
    """The status number in gRPC of an error."""
    if isinstance(error, UpstreamError):
        return error.code
    if isinstance(error, ProxyError):
        number: int = status_of(error)[0].value[0]
        return number
    return _CANCELLED if isinstance(error, asyncio.CancelledError) else attributes.INTERNAL
