"""What a client is told of our own errors: the only table of statuses."""

from __future__ import annotations

import grpc

from proxy.errors import (
    Blocked,
    DeadlineExceeded,
    DetectorFailed,
    Draining,
    InvalidRequest,
    Overloaded,
    ProxyError,
    RpcRefused,
    SharedMemoryRefused,
    UpstreamUnavailable,
)

_STATUS: dict[type[ProxyError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    RpcRefused: grpc.StatusCode.PERMISSION_DENIED,
    SharedMemoryRefused: grpc.StatusCode.PERMISSION_DENIED,
    # What Triton says of a full queue: a refused request looks like a busy server.
    Blocked: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Draining: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    UpstreamUnavailable: grpc.StatusCode.UNAVAILABLE,
    DetectorFailed: grpc.StatusCode.UNAVAILABLE,
}

BUSY = "the server is busy"
"""What a caller is told of a block and of a missing verdict: the same, and nothing of either."""


def status_of(error: ProxyError) -> tuple[grpc.StatusCode, str]:
    """The status and text a client gets for one of our own errors."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            hidden = isinstance(error, Blocked | DetectorFailed)
            return _STATUS[kind], BUSY if hidden else str(error)
    return grpc.StatusCode.INTERNAL, "internal error"
