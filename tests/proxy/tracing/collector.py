"""A real OTLP collector in this process, and spans as tests want to look at them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

SERVER, CLIENT, INTERNAL = 2, 3, 1


@dataclass(frozen=True)
class Span:
    """One span as it was received."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]

    def __contains__(self, other: Span) -> bool:
        """Whether the other one's time lies within this one's."""
        return self.start_ns <= other.start_ns <= other.end_ns <= self.end_ns

    @property
    def purpose(self) -> str:
        return str(self.attributes.get("breakwater.purpose", self.name))


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector(pb_grpc.TraceServiceServicer):
    """Notes what it is sent. `refusal` makes it answer with an error; `gate`, when it is closed,
    wait."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metadata: list[dict[str, Any]] = []
        self.refusal: grpc.StatusCode | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def Export(self, request: Any, context: Any) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        self.asked.set()
        await self.gate.wait()
        if self.refusal is not None:
            await context.abort(self.refusal, "no")
        for of_resource in request.resource_spans:
            resource = _values(of_resource.resource.attributes)
            for scope in of_resource.scope_spans:
                self.spans += [_span(each, resource) for each in scope.spans]
        return pb.ExportTraceServiceResponse()

    def named(self, purpose: str) -> list[Span]:
        return [span for span in self.spans if span.purpose == purpose]

    def roots(self) -> list[Span]:
        """The spans that have no parent here, in order of time."""
        ids = {span.span_id for span in self.spans}
        found = [span for span in self.spans if span.parent_id not in ids]
        return sorted(found, key=lambda span: span.start_ns)

    def children(self, parent: Span) -> list[Span]:
        """In order of time."""
        found = [span for span in self.spans if span.parent_id == parent.span_id]
        return sorted(found, key=lambda span: (span.start_ns, span.end_ns))


def _span(each: Any, resource: dict[str, Any]) -> Span:
    return Span(
        each.name,
        each.kind,
        each.trace_id.hex(),
        each.span_id.hex(),
        each.parent_span_id.hex(),
        each.start_time_unix_nano,
        each.end_time_unix_nano,
        each.status.code,
        _values(each.attributes),
        resource,
    )


@dataclass
class Collecting:
    """A running collector, and the configuration that sends everything to it."""

    collector: Collector
    endpoint: str
    settings: dict[str, Any] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def collecting(**settings: Any) -> AsyncIterator[Collecting]:
    """A started collector; a sidecar with these settings records every request."""
    collector = Collector()
    server = grpc.aio.server()
    pb_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    endpoint = f"http://127.0.0.1:{port}"
    try:
        yield Collecting(
            collector,
            endpoint,
            {"endpoint": endpoint, "sample_ratio": 1.0, "max_per_second": 1000, **settings},
        )
    finally:
        collector.gate.set()
        await server.stop(0)
