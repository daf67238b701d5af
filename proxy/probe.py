"""Asks a server once how it is, by `grpc.health.v1`. Knows nothing of this proxy's own states."""

from __future__ import annotations

from enum import IntEnum

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

_CHECK = "/grpc.health.v1.Health/Check"
_STATUS = health_pb2.HealthCheckResponse.ServingStatus


class Health(IntEnum):
    """What was found, as the exit status of `breakwater health`."""

    SERVING = 0
    NOT_SERVING = 1
    UNREACHABLE = 2


def probe(address: str, service: str, *, timeout_s: float) -> tuple[Health, str]:
    """How a service is, and a line that says so.

    Args:
        address: HOST:PORT, an IPv6 host in brackets; without TLS, past any HTTP proxy.
        service: its name; "" is the server as a whole. One it does not know is NOT_SERVING.
        timeout_s: longest it may take, connecting included.
    """
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    with grpc.insecure_channel(address, (("grpc.enable_http_proxy", 0),)) as channel:
        # As bytes: what a stranger answers must not end in a stack trace.
        check = channel.unary_unary(_CHECK)
        try:
            answer: bytes = check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return _failure(error.code(), address, timeout_s)
    try:
        status = health_pb2.HealthCheckResponse.FromString(answer).status
    except DecodeError:
        return Health.UNREACHABLE, f"{address} answers, but not in grpc.health.v1"
    if status == health_pb2.HealthCheckResponse.SERVING:
        return Health.SERVING, "SERVING"
    name = _STATUS.Name(status) if status in _STATUS.values() else f"status {status}"
    return Health.NOT_SERVING, name


def _failure(code: grpc.StatusCode, address: str, timeout_s: float) -> tuple[Health, str]:
    """What an error says; its text is the stranger's and is not shown."""
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return Health.NOT_SERVING, "SERVICE_UNKNOWN: nothing of this name is served there"
        case grpc.StatusCode.UNAVAILABLE:
            return Health.UNREACHABLE, f"nothing answers at {address}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Health.UNREACHABLE, f"no answer from {address} within {timeout_s:g} s"
        case grpc.StatusCode.UNIMPLEMENTED:
            return Health.UNREACHABLE, f"{address} does not speak grpc.health.v1"
        case _:
            return Health.UNREACHABLE, f"{address} answers {code.name}"
