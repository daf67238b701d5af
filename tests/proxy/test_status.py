from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from proxy.errors import (
    Blocked,
    DeadlineExceeded,
    DetectorFailed,
    Draining,
    InvalidRequest,
    InvalidTensor,
    Limited,
    Overloaded,
    ProxyError,
    RpcRefused,
    SharedMemoryRefused,
    UpstreamError,
    UpstreamUnavailable,
)
from proxy.status import BUSY, status_of

Code = grpc.StatusCode

TABLE = {
    InvalidRequest: Code.INVALID_ARGUMENT,
    InvalidTensor: Code.INVALID_ARGUMENT,
    RpcRefused: Code.PERMISSION_DENIED,
    SharedMemoryRefused: Code.PERMISSION_DENIED,
    Overloaded: Code.RESOURCE_EXHAUSTED,
    Limited: Code.RESOURCE_EXHAUSTED,
    Draining: Code.UNAVAILABLE,
    DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    UpstreamUnavailable: Code.UNAVAILABLE,
}
SILENT = {Blocked: Blocked("score 0.97"), DetectorFailed: DetectorFailed("error", "torch says no")}


def kinds(base: type[ProxyError]) -> Iterator[type[ProxyError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_has_a_status() -> None:
    # UpstreamError carries its own.
    assert set(kinds(ProxyError)) == {*TABLE, *SILENT, UpstreamError}


@pytest.mark.parametrize("kind", TABLE, ids=lambda k: k.__name__)
def test_the_client_gets_code_and_text(kind: type[ProxyError]) -> None:
    assert status_of(kind("what to do")) == (TABLE[kind], "what to do")


@pytest.mark.parametrize("kind", SILENT, ids=lambda k: k.__name__)
def test_a_block_and_a_missing_verdict_look_the_same(kind: type[ProxyError]) -> None:
    assert status_of(SILENT[kind]) == (Code.UNAVAILABLE, BUSY)


def test_anything_else_says_nothing() -> None:
    assert status_of(ProxyError("/etc/secret")) == (Code.INTERNAL, "internal error")
