"""Who a request is from, and who cannot say so."""

from __future__ import annotations

import pytest

from proxy.identity.principal import principal_of

PEER = "ipv4:10.1.2.3:4711"
SPIFFE = {"x509_subject_alternative_name": [b"a.example", b"spiffe://mesh/ns/a/sa/b"]}


def of(
    peer: str = PEER,
    certificate: dict[str, list[bytes]] | None = None,
    metadata: tuple[tuple[str, str | bytes], ...] = (),
    header: str | None = "x-user",
    trusted: tuple[str, ...] | None = None,
) -> str:
    return principal_of(peer, certificate or {}, metadata, header=header, trusted=trusted)


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        (PEER, "ipv4:10.1.2.3"),
        ("ipv6:%5B::1%5D:80", "ipv6:%5B::1%5D"),
        ("unix:/run/front.sock", "unix:/run/front.sock"),
        ("", ""),
    ],
)
def test_without_anything_else_it_is_the_address(peer: str, name: str) -> None:
    assert of(peer) == name


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (SPIFFE, "spiffe://mesh/ns/a/sa/b"),
        ({"x509_subject_alternative_name": [b"a.example", b"b.example"]}, "a.example"),
        ({"x509_common_name": [b"somebody"]}, "somebody"),
        ({"x509_common_name": [b"\xff\xfe"]}, "\ufffd\ufffd"),
        ({"transport_security_type": [b"ssl"]}, "ipv4:10.1.2.3"),
    ],
)
def test_a_certificate_names_its_owner(certificate: dict[str, list[bytes]], name: str) -> None:
    assert of(certificate=certificate, header=None) == name


def test_a_header_is_believed_of_everybody_unless_it_is_said_of_whom() -> None:
    said = (("x-user", "alice"),)
    assert of(metadata=said) == "alice"
    assert of(metadata=said, trusted=("10.0.0.0/8",)) == "alice"
    assert of(metadata=said, trusted=("10.1.2.4",)) == "ipv4:10.1.2.3"
    assert of(metadata=said, trusted=()) == "ipv4:10.1.2.3"
    assert of(metadata=said, certificate=SPIFFE, trusted=("spiffe://mesh/ns/a/sa/b",)) == "alice"
    stranger = {"x509_subject_alternative_name": [b"spiffe://mesh/ns/evil"]}
    assert of(metadata=said, certificate=stranger, trusted=("spiffe://mesh/ns/a/sa/b",)) == (
        "spiffe://mesh/ns/evil"
    )


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [("ipv6:%5B::1%5D:80", "::1/128"), ("ipv6:%5Bfe80::1%25eth0%5D:80", "fe80::/10")],
)
def test_networks_of_both_kinds(peer: str, trusted: str) -> None:
    assert of(peer, metadata=(("x-user", "alice"),), trusted=(trusted,)) == "alice"


@pytest.mark.parametrize("peer", ["unix:/run/front.sock", "", "ipv4:what:1", "ipv4:"])
def test_a_peer_without_an_address_is_in_no_network(peer: str) -> None:
    assert of(peer, metadata=(("x-user", "alice"),), trusted=("0.0.0.0/0", "::/0")) != "alice"


def test_what_a_gateway_appends_counts_not_what_its_client_said() -> None:
    assert of(metadata=(("x-user", "somebody else"), ("x-user", "alice"))) == "alice"


def test_names_are_bounded_and_may_be_any_bytes() -> None:
    assert len(of(metadata=(("x-user", "x" * 1_000_000),))) == 256
    assert of(metadata=(("x-user-bin", b"\xff"),), header="x-user-bin") == "\ufffd"
    long = {"x509_common_name": [b"x" * 10_000]}
    assert len(of(certificate=long, header=None)) == 256
