"""What a caller is called, and who cannot call himself something else."""

from __future__ import annotations

import pytest

from proxy.errors import InvalidRequest
from proxy.identity.principal import host, is_trusted, names, shortened, told

PEER = "ipv4:10.1.2.3:4711"


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        (PEER, "ipv4:10.1.2.3"),
        ("ipv6:%5B::1%5D:80", "ipv6:%5B::1%5D"),
        ("unix:/run/front.sock", "unix:/run/front.sock"),
        ("", ""),
    ],
)
def test_an_address_is_without_its_port(peer: str, name: str) -> None:
    assert host(peer) == name


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"peer_uri": [b"spiffe://mesh/a"], "peer_dns": [b"a.b"]}, ("spiffe://mesh/a", "a.b")),
        ({"peer_dns": [b"a.b", b"c.d"], "x509_common_name": [b"cn"]}, ("a.b", "c.d")),
        ({"x509_common_name": [b"somebody"]}, ("somebody",)),
        ({"x509_common_name": [b""]}, ()),
        ({"x509_common_name": [b"\xff"]}, ("\\xff",)),
        ({"transport_security_type": [b"ssl"]}, ()),
        ({}, ()),
    ],
)
def test_the_names_of_a_certificate(
    facts: dict[str, list[bytes]], expected: tuple[str, ...]
) -> None:
    assert names(facts) == expected


@pytest.mark.parametrize(
    ("peer", "trusted", "expected"),
    [
        (PEER, "10.0.0.0/8", True),
        (PEER, "10.1.2.3", True),
        (PEER, "10.1.2.4", False),
        ("ipv6:%5B::ffff:10.1.2.3%5D:80", "10.0.0.0/8", True),
        ("ipv6:%5B::1%5D:80", "::1", True),
        ("ipv6:%5Bfe80::1%25eth0%5D:80", "fe80::/10", True),
        ("ipv6:%5B::1%5D:80", "0.0.0.0/0", False),
        ("unix:/run/10.1.2.3:4", "0.0.0.0/0", False),
        ("", "::/0", False),
        ("ipv4:what:1", "0.0.0.0/0", False),
    ],
)
def test_trusted_by_address(peer: str, trusted: str, expected: bool) -> None:
    assert is_trusted([trusted], peer, []) is expected


def test_trusted_by_certificate_is_the_whole_name() -> None:
    gateway = "spiffe://mesh/gateway"
    assert is_trusted(["192.0.2.1", gateway], PEER, ["other", gateway])
    assert not is_trusted([gateway], PEER, [gateway + "/not", "spiffe://mesh/gatewa"])
    assert not is_trusted([], PEER, [gateway])


def test_a_certificate_that_is_called_like_a_trusted_address_is_not_trusted() -> None:
    assert not is_trusted(["192.0.2.1"], PEER, ["192.0.2.1", "ipv4:192.0.2.1"])


def test_two_headers_that_differ_are_refused() -> None:
    assert told("x-user", [("x-user", "alice"), ("x-other", "bob")]) == "alice"
    assert told("x-user", [("x-user", "alice"), ("x-user", "alice")]) == "alice"
    assert told("x-user", [("x-other", "bob")]) == ""
    with pytest.raises(InvalidRequest, match="given twice"):
        told("x-user", [("x-user", "victim"), ("x-user", "alice")])


def test_binary_headers_are_text() -> None:
    assert told("x-user-bin", [("x-user-bin", "äöü".encode())]) == "äöü"
    assert told("x-user-bin", [("x-user-bin", b"\xff\x00")]) == "\\xff\x00"


def test_long_names_are_short_and_still_differ() -> None:
    one, other = shortened("x" * 1_000_000), shortened("x" * 999_999 + "y")
    assert len(one) == len(other) == 256
    assert one != other
    assert shortened("x" * 256) == "x" * 256
    assert len(shortened("\udcff" * 300)) == 256
