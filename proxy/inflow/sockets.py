"""This process's connections, found among its descriptors: gRPC hands none of them out."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
_Peer = tuple[str, int]


def open_connections(port: int) -> int:
    """Count this process's connections on a TCP port; 1 where the system does not tell (no /proc).

    Workers share the port: the kernel's own list would count the connections of all.
    """
    try:
        return sum(1 for _ in _connections(port))
    except OSError:
        return 1


def end_connection(peer: str, port: int) -> bool:
    """End a client's connection on a TCP port, with all calls on it; False where there is none.

    gRPC takes it for a client that has gone, and frees what it holds for it. It has no way of its
    own to end a call whose client takes nothing: a status waits behind the answer.

    Args:
        peer: as `ServicerContext.peer` has it, such as ipv4:10.0.0.1:5555.
    """
    wanted = _of(peer)
    if wanted is None:
        return False
    with contextlib.suppress(OSError):
        for it in _connections(port):
            host, number = it.getpeername()[:2]
            if (_plain(host), number) == wanted:
                it.shutdown(socket.SHUT_RDWR)
                return True
    return False


def _connections(port: int) -> Iterator[socket.socket]:
    """Each connection, usable until the next one; raises OSError where there is no /proc."""
    for descriptor in [int(entry.name) for entry in _DESCRIPTORS.iterdir()]:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            it = socket.socket(fileno=os.dup(descriptor))
        except OSError:  # closed in the meantime
            continue
        with it:
            if _is_connection(it, port):
                yield it


def _is_connection(it: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):
        if it.family in (socket.AF_INET, socket.AF_INET6):
            it.getpeername()  # fails on a listening socket
            return bool(it.getsockname()[1] == port)
    return False


def _of(peer: str) -> _Peer | None:
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """An address in one spelling; an IPv4 client of a dual-stack socket is one of IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
