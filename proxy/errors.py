"""Everything that can go wrong with a request, as exceptions without any gRPC in them.

`kind` is the metric label and the log field; `source` says whose fault it is. The status a client
sees is decided in one place, `proxy.service`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

GRPC_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
"""Names of gRPC's status codes by number."""


class Source(StrEnum):
    """Whose fault an error is."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


class ProxyError(Exception):
    """Base of all errors a request can end with; `str()` is the text for the client."""

    kind: ClassVar[str] = "internal"
    source: ClassVar[Source] = Source.INTERNAL


class InvalidRequest(ProxyError):
    """The message is malformed, or contradicts itself, or is not one Triton would accept."""

    kind = "invalid_request"
    source = Source.DOWNSTREAM


class InvalidTensor(InvalidRequest):
    """A tensor's data cannot be what its declaration says, or lies outside the declared range."""

    kind = "invalid_tensor"


class RpcRefused(ProxyError):
    """The RPC belongs to a group that the configuration does not allow."""

    kind = "rpc_refused"
    source = Source.DOWNSTREAM


class SharedMemoryRefused(ProxyError):
    """The request points to shared memory and the configuration does not allow it."""

    kind = "shared_memory_refused"
    source = Source.DOWNSTREAM


class Blocked(ProxyError):
    """Policy blocked the request. The text never says why (README, Silent by default)."""

    kind = "blocked"
    source = Source.DOWNSTREAM


class Overloaded(ProxyError):
    """A bound was reached: in-flight requests, or the scoring queue."""

    kind = "overloaded"


class Limited(Overloaded):
    """The principal has used up what it may (section `limits`)."""

    kind = "limited"
    source = Source.DOWNSTREAM


class Draining(ProxyError):
    """The proxy is shutting down and takes no new requests."""

    kind = "draining"


class DeadlineExceeded(ProxyError):
    """The client's deadline passed while the proxy still had work to do."""

    kind = "deadline_exceeded"
    source = Source.DOWNSTREAM


class DetectorFailed(ProxyError):
    """No verdict could be reached: a detector raised, returned NaN, or ran past its budget.

    `reason` is one of a closed set (a metric label): error, non_finite, budget, overloaded,
    no_evidence, not_ready, circuit_open.
    """

    kind = "detector_failed"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


class UpstreamError(ProxyError):
    """The model server answered with an error; `code` is its gRPC status number."""

    kind = "upstream_error"
    source = Source.UPSTREAM

    def __init__(
        self,
        code: int,
        details: str,
        trailing_metadata: Sequence[tuple[str, str | bytes]] = (),
        *,
        is_final: bool = False,
    ) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.trailing_metadata = tuple(trailing_metadata)
        self.is_final = is_final
        """Whether the server itself ended the call, so that it works on it no longer."""

    @property
    def code_name(self) -> str:
        """The status by name, e.g. `NOT_FOUND`."""
        return GRPC_CODES[self.code]


class UpstreamUnavailable(ProxyError):
    """The model server cannot be reached, or went away during the call."""

    kind = "upstream_unavailable"
    source = Source.UPSTREAM


class ConfigError(Exception):
    """The configuration (or a file it names) cannot be used; the text says what to do about it."""
