from __future__ import annotations

import pytest

from proxy.headers import to_client, to_upstream

PASSES = (("traceparent", "00-a-b-01"), ("x-bin", b"\x00"), ("x-twice", "1"), ("x-twice", "2"))


@pytest.mark.parametrize(
    "key", ["user-agent", "te", "content-type", "grpc-timeout", "breakwater-verdict"]
)
def test_what_is_not_the_clients_to_say_stays_here(key: str) -> None:
    assert to_upstream((*PASSES, (key, "x"))) == PASSES


@pytest.mark.parametrize("nothing", [None, (), (("te", "trailers"),)])
def test_nothing_is_none(nothing: tuple | None) -> None:
    assert to_upstream(nothing) is None


def test_only_the_proxy_speaks_as_the_proxy() -> None:
    status = ("grpc-status-details-bin", b"\x08\x05")  # travels with the status, not with a hop
    assert to_client((*PASSES, ("breakwater-verdict", "pass"), status)) == (*PASSES, status)
    assert to_client(None) == ()
