"""Begins the traces of a process and sends them to the collector; loads OpenTelemetry."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.trace import SpanKind

from proxy.errors import ConfigError
from proxy.flow import Flow
from proxy.rpc import Rpc
from proxy.tracing import attributes, settings
from proxy.tracing.context import onward, received
from proxy.tracing.exporting import OnLost, Outbox
from proxy.tracing.sampling import sampler
from proxy.tracing.trace import RequestTrace
from proxy.upstream import Metadata

CLOSE_S = 2.0
"""What the last spans get to reach the collector when the process ends, seconds."""

_EXPORT_TIMEOUT_S = 5
"""For one message to the collector, attempts after the first included."""

_MOST_HEADER_BYTES = 8192
_LIMITS = SpanLimits(max_attributes=64, max_events=1, max_links=1, max_attribute_length=256)
_Headers = tuple[tuple[str, str], ...]


class Tracing:
    """Traces of this process.

    Args:
        config: the section `tracing`.
        on_lost: told how many spans the collector will never have; on any thread.
        worker: which of several processes this is, where there are several.

    Raises:
        ConfigError: a file it names cannot be used.
    """

    def __init__(self, config: settings.Tracing, on_lost: OnLost, *, worker: str = "") -> None:
        self._client_ids = config.client_ids
        self._outbox = Outbox(_exporter(config), config.queue, on_lost)
        self._provider = TracerProvider(
            sampler=sampler(
                config.sample_ratio, config.max_per_second, parent_based=config.parent_based
            ),
            resource=Resource.create(_resource(config, worker)),
            shutdown_on_exit=False,
            span_limits=_LIMITS,
        )
        self._provider.add_span_processor(self._outbox)
        self._tracer = self._provider.get_tracer("breakwater")
        self._methods: dict[str, tuple[str, dict[str, attributes.Value]]] = {}

    def begin(self, flow: Flow, method: Rpc, metadata: Metadata | None) -> Metadata | None:
        """Record a request from its arrival on, if it is to be; what to send upstream with it.

        Args:
            flow: gets the trace.
            method: ModelInfer, or ModelStreamInfer.
            metadata: the client's.
        """
        offset_ns = time.time_ns() - int(time.monotonic() * 1e9)
        parent, rest = received(metadata)
        name, about = self._method(method)
        span = self._tracer.start_span(
            name,
            parent,
            SpanKind.SERVER,
            about,
            start_time=int(flow.arrival_s * 1e9) + offset_ns,
        )
        own = span.get_span_context()
        if not own.is_valid:  # switched off by OTEL_SDK_DISABLED
            return metadata
        if not span.is_recording():
            return onward(rest, own)
        trace = RequestTrace(self._tracer, span, rest, offset_ns, client_ids=self._client_ids)
        flow.trace = trace
        return trace.metadata

    async def close(self) -> None:
        """Send what is left, for `CLOSE_S` at most."""
        await self._outbox.close(CLOSE_S)

    def _method(self, method: Rpc) -> tuple[str, dict[str, attributes.Value]]:
        known = self._methods.get(method.path)
        if known is None:
            known = method.path.strip("/"), attributes.of_method(method.path)
            self._methods[method.path] = known
        return known


def _resource(config: settings.Tracing, worker: str) -> dict[str, str | int]:
    about: dict[str, str | int] = {
        "service.name": config.service_name,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "process.pid": os.getpid(),
    }
    if worker:
        about["breakwater.worker"] = worker
    return about


def _exporter(config: settings.Tracing) -> OTLPSpanExporter:
    credentials = None
    if config.is_secure:
        roots = None if config.ca_file is None else _read("ca_file", config.ca_file)
        credentials = grpc.ssl_channel_credentials(roots)
    return OTLPSpanExporter(
        endpoint=config.endpoint,
        insecure=not config.is_secure,
        credentials=credentials,
        headers=read_headers(config.headers_file) if config.headers_file else None,
        timeout=_EXPORT_TIMEOUT_S,
        compression=grpc.Compression.NoCompression,
        # As to the upstream: never through a proxy of the environment.
        channel_options=(("grpc.enable_http_proxy", 0),),  # type: ignore[arg-type]
    )


def read_headers(path: Path) -> _Headers:
    """Metadata for the collector: a file of lines `name: value`.

    Raises:
        ConfigError: the file cannot be read, or a line is no header; never says what is in it.
    """
    data = _read("headers_file", path)
    wrong = f"tracing.headers_file: {path}"
    if len(data) > _MOST_HEADER_BYTES:
        raise ConfigError(f"{wrong} has over {_MOST_HEADER_BYTES} bytes")
    headers = []
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        name = name.lower()
        known = name.replace("-", "").replace("_", "").replace(".", "")
        if not (colon and known.isalnum() and known.isascii() and value.isprintable()):
            raise ConfigError(f"{wrong}, line {number}: write `name: value`, in ASCII")
        if "\ufffd" in value or not value or name.startswith("grpc-") or name.endswith("-bin"):
            raise ConfigError(f"{wrong}, line {number}: gRPC does not take this as metadata")
        headers.append((name, value))
    return tuple(headers)


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"tracing.{field}: {error}") from error
