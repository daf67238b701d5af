"""Connections are found by their address, counted, and ended."""

from __future__ import annotations

import socket

import pytest

from proxy.inflow.sockets import end_connection, open_connections


def test_connections_of_a_port_are_counted_and_no_others() -> None:
    left, right = socket.socketpair()
    with left, right, socket.socket() as listening, socket.socket() as other:
        for each in (listening, other):
            each.bind(("127.0.0.1", 0))
            each.listen()
        port = listening.getsockname()[1]
        assert open_connections(port) == 0
        with socket.create_connection(("127.0.0.1", port)), listening.accept()[0]:
            assert open_connections(port) == 1
            with socket.create_connection(other.getsockname()):
                assert open_connections(port) == 1
        assert open_connections(port) == 0


@pytest.mark.parametrize(
    ("family", "host", "peer"),
    [
        (socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:{}"),
    ],
)
def test_only_the_connection_named_is_ended(family: int, host: str, peer: str) -> None:
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        listening.listen()
        address = listening.getsockname()[:2]
        with (
            socket.create_connection(address) as bad,
            listening.accept()[0],
            socket.create_connection(address) as good,
            listening.accept()[0] as kept,
        ):
            assert end_connection(peer.format(bad.getsockname()[1]), address[1])
            assert bad.recv(1) == b""
            kept.sendall(b"x")
            assert good.recv(1) == b"x"


def test_a_dual_stack_socket_names_an_ipv4_client_as_grpc_does() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listening.accept()[0]:
            assert end_connection(f"ipv4:127.0.0.1:{client.getsockname()[1]}", port)
            assert client.recv(1) == b""


@pytest.mark.parametrize("peer", ["unix:", "ipv4:127.0.0.1:1", "ipv4:127.0.0.1:http", "", "ipv6:"])
def test_a_peer_that_is_not_there_is_no_harm(peer: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not end_connection(peer, listening.getsockname()[1])
