"""What a caller is called: a trusted gateway's word, its certificate's name, or its address."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from urllib.parse import unquote

from proxy.errors import InvalidRequest

MOST_CHARACTERS = 256
"""Of a name; thousands of them are remembered, and clients may choose them."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Facts = Mapping[str, Iterable[bytes]]
"""What gRPC knows of a connection: `ServicerContext.auth_context()`."""


def names(facts: Facts) -> tuple[str, ...]:
    """The names in a verified certificate, the one it is called by first.

    URIs (SPIFFE: one), then DNS names; the common name only where there is neither, as RFC 6125
    wants it. No certificate: none.
    """
    found: list[str] = []
    for kind in ("peer_uri", "peer_dns"):
        found += (_text(name) for name in facts.get(kind) or ())
    if not found:
        found = [_text(name) for name in facts.get("x509_common_name") or ()]
    return tuple(filter(None, found))


def told(header: str, metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """What the metadata says under this key; empty: nothing.

    Raises:
        InvalidRequest: it says two things: a client may have sent one of them, and gateways differ
            in which of the two is theirs.
    """
    said = {_text(value) for key, value in metadata if key == header}
    if len(said) > 1:
        raise InvalidRequest(f"the metadata {header!r} is given twice and differs")
    return said.pop() if said else ""


def is_trusted(trusted: Sequence[str], peer: str, certified: Sequence[str]) -> bool:
    """Whether the connection comes from one of these addresses or has one of these names."""
    networks, named = _sorted(tuple(trusted))
    if any(name in named for name in certified):
        return True
    address = _address(host(peer)) if networks else None
    return address is not None and any(address in network for network in networks)


def host(peer: str) -> str:
    """A peer's address without its port, which is another one for every connection."""
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer


def shortened(name: str) -> str:
    """A name of bounded length; two that differ stay different."""
    if len(name) <= MOST_CHARACTERS:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{name[: MOST_CHARACTERS - 17]}~{digest}"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


@functools.lru_cache(maxsize=64)
def _sorted(trusted: tuple[str, ...]) -> tuple[tuple[_Network, ...], frozenset[str]]:
    networks: list[_Network] = []
    named: set[str] = set()
    for entry in trusted:
        try:
            networks.append(ipaddress.ip_network(entry))
        except ValueError:
            named.add(entry)
    return tuple(networks), frozenset(named)


@functools.lru_cache(maxsize=4096)
def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Of gRPC's `ipv4:10.0.0.1` or `ipv6:%5B::1%5D`; None for sockets."""
    kind, _, text = host.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    try:
        address = ipaddress.ip_address(unquote(text).strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
