"""The configuration's section `tracing`; plain data, loads no OpenTelemetry."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MISSING = "tracing needs OpenTelemetry: pip install breakwater[tracing]"


class Tracing(BaseModel):
    """Spans for an OpenTelemetry collector. Without this section trace context still passes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    endpoint: str = Field(default="http://127.0.0.1:4317", max_length=512)
    """The collector's OTLP port for gRPC: http://HOST:PORT in plain text, https://HOST:PORT with
    TLS."""
    ca_file: Path | None = None
    """Certificates the collector's one is checked against, PEM, relative to the configuration
    file. Default: the system's. Goes with https."""
    headers_file: Path | None = None
    """File with metadata for the collector, one `name: value` a line, such as an API key; relative
    to the configuration file, read once at start. In plain text it is readable on the way: take
    https beyond this machine."""
    sample_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of requests recorded whose caller has not decided (see parent_based); of a stream's
    first message it counts for the whole stream."""
    parent_based: bool = True
    """Follow the caller's decision, where its traceparent has one. false: `sample_ratio` alone
    decides, by the trace id. Callers cannot record more than `max_per_second` either way."""
    max_per_second: float = Field(default=50.0, gt=0, le=10_000)
    """Most requests, streams and messages of streams that a worker records in a second, whatever
    callers ask for. Each is some ten spans, and at most 64."""
    queue: int = Field(default=4096, ge=64, le=65_536)
    """Most spans waiting for the collector in a worker, 2 to 3 KB each. One more is dropped and
    counted (breakwater_spans_dropped_total): requests never wait for the collector."""
    service_name: str = Field(default="breakwater", min_length=1, max_length=128)
    """What traces call this service. OTEL_RESOURCE_ATTRIBUTES in the environment adds further
    attributes, such as the pod's name."""
    client_ids: bool = False
    """Put the `id` field of clients' requests on their spans. Off by default: clients choose it,
    and it may be personal data."""

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        try:
            url = urlsplit(value)
            port = url.port
        except ValueError:
            url, port = SplitResult("", "", "", "", ""), None
        plain = url.path in ("", "/") and not (url.query or url.fragment or "@" in url.netloc)
        if url.scheme not in ("http", "https") or not url.hostname or not port or not plain:
            raise ValueError(
                "must be http://HOST:PORT or https://HOST:PORT, the collector's gRPC port (4317)"
            )
        return value

    @property
    def is_secure(self) -> bool:
        """Whether the collector is reached over TLS."""
        return self.endpoint.startswith("https:")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ca_file is not None and not self.is_secure:
            raise ValueError("ca_file needs an endpoint with https://")
        return self
