"""Asks a server once how it is, by `grpc.health.v1`. Knows nothing of this proxy's own states."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

if TYPE_CHECKING:  # pydantic takes longer to load than a probe does
    from proxy.identity.settings import UpstreamTls

_CHECK = "/grpc.health.v1.Health/Check"
_STATUS = health_pb2.HealthCheckResponse.ServingStatus


class Health(IntEnum):
    """What was found, as the exit status of `breakwater health`."""

    SERVING = 0
    NOT_SERVING = 1
    UNREACHABLE = 2


def probe(
    address: str, service: str, *, timeout_s: float, tls: UpstreamTls | None = None
) -> tuple[Health, str]:
    """How a service is, and a line that says so.

    Args:
        address: HOST:PORT, an IPv6 host in brackets; past any HTTP proxy.
        service: its name; "" is the server as a whole. One it does not know is NOT_SERVING.
        timeout_s: longest it may take, connecting included.
        tls: how the server is known; None: without TLS.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    with _channel(address, tls) as channel:
        # As bytes: what a stranger answers must not end in a stack trace.
        check = channel.unary_unary(_CHECK)
        try:
            answer: bytes = check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return _failure(error.code(), address, timeout_s, _problem(error, tls))
    try:
        status = health_pb2.HealthCheckResponse.FromString(answer).status
    except DecodeError:
        return Health.UNREACHABLE, f"{address} answers, but not in grpc.health.v1"
    if status == health_pb2.HealthCheckResponse.SERVING:
        return Health.SERVING, "SERVING"
    name = _STATUS.Name(status) if status in _STATUS.values() else f"status {status}"
    return Health.NOT_SERVING, name


def _channel(address: str, tls: UpstreamTls | None) -> grpc.Channel:
    options: tuple[tuple[str, int | str], ...] = (("grpc.enable_http_proxy", 0),)
    if tls is None:
        return grpc.insecure_channel(address, options)
    from proxy.identity.upstream_tls import credentials

    if tls.server_name:
        options += (("grpc.ssl_target_name_override", tls.server_name),)
    return grpc.secure_channel(address, credentials(tls), options)


def _problem(error: grpc.RpcError, tls: UpstreamTls | None) -> str:
    if tls is None:
        return ""
    from proxy.identity.upstream_tls import problem

    return problem(error.details() or "")


def _failure(
    code: grpc.StatusCode, address: str, timeout_s: float, problem: str
) -> tuple[Health, str]:
    """What an error says; its text is the stranger's and is not shown."""
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return Health.NOT_SERVING, "SERVICE_UNKNOWN: nothing of this name is served there"
        case grpc.StatusCode.UNAVAILABLE:
            return Health.UNREACHABLE, f"nothing answers at {address}{problem}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Health.UNREACHABLE, f"no answer from {address} within {timeout_s:g} s"
        case grpc.StatusCode.UNIMPLEMENTED:
            return Health.UNREACHABLE, f"{address} does not speak grpc.health.v1"
        case _:
            return Health.UNREACHABLE, f"{address} answers {code.name}"
