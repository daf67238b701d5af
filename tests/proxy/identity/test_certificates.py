"""Certificates from files: what can be used, what a client sees, and what a change does."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proxy.errors import ConfigError
from proxy.health import HealthServicer
from proxy.identity.certificates import Files, channel_credentials, read, server_credentials
from tests.proxy.identity.certified import Authority, Paper


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def paper(authority: Authority) -> Paper:
    return authority.issue("server", "localhost", "127.0.0.1")


def files(paper: Paper, ca_file: Path | None = None) -> Files:
    return Files("tls", paper.cert_file, paper.key_file, ca_file)


@asynccontextmanager
async def serving(credentials: grpc.ServerCredentials) -> AsyncIterator[str]:
    server, health = grpc.aio.server(), HealthServicer()
    health.publish({"": True})
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        health.close()
        await server.stop(0)


async def code(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """What a new connection gets."""
    channel = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(
            address, credentials, options=(("grpc.use_local_subchannel_pool", 1),)
        )
    )
    async with channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=5
            )
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def test_whoever_trusts_the_authority_gets_in(authority: Authority, paper: Paper) -> None:
    async with serving(server_credentials(files(paper))) as address:
        assert await code(address, authority.client()) is grpc.StatusCode.OK
        assert await code(address, None) is grpc.StatusCode.UNAVAILABLE


async def test_clients_must_show_a_certificate_of_ours(
    authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "other")
    async with serving(server_credentials(files(paper, authority.file))) as address:
        ours = authority.issue("client", "client.example")
        assert await code(address, authority.client(ours)) is grpc.StatusCode.OK
        for shown in (
            None,
            stranger.issue("strange", "client.example"),
            authority.issue("old", "client.example", days=-1),
        ):
            assert await code(address, authority.client(shown)) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_versions_of_tls_are_not_spoken(authority: Authority, paper: Paper) -> None:
    async with serving(server_credentials(files(paper))) as address:
        host, _, port = address.partition(":")

        def shake(version: ssl.TLSVersion) -> str | None:
            context = ssl.create_default_context(cafile=str(authority.file))
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            context.minimum_version = context.maximum_version = version
            with (
                socket.create_connection((host, int(port))) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                return connection.version()

        assert await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_1)


async def test_a_changed_certificate_is_in_force_and_open_connections_stay(
    authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    other, told = Authority(tmp_path, "other"), []
    async with (
        serving(server_credentials(files(paper), told.append)) as address,
        grpc.aio.secure_channel(address, authority.client()) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest())
        await watching.read()
        other.issue("server", "localhost", "127.0.0.1", to=paper)
        assert await code(address, other.client()) is grpc.StatusCode.OK
        assert await code(address, authority.client()) is grpc.StatusCode.UNAVAILABLE
        await stub.Check(health_pb2.HealthCheckRequest())
        assert not watching.done()
        watching.cancel()
    assert told == [True]


async def test_a_pair_that_does_not_match_changes_nothing_until_it_does(
    authority: Authority, paper: Paper, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bool] = []
    fresh = authority.issue("fresh", "localhost", "127.0.0.1")
    async with serving(server_credentials(files(paper), told.append)) as address:
        shutil.copyfile(fresh.cert_file, paper.cert_file)  # a writer half way
        for _ in range(3):
            assert await code(address, authority.client()) is grpc.StatusCode.OK
        assert told == [False], "said once"
        assert "the certificate in force stays" in caplog.text
        shutil.copyfile(fresh.key_file, paper.key_file)
        assert await code(address, authority.client()) is grpc.StatusCode.OK
        paper.cert_file.unlink()
        assert await code(address, authority.client()) is grpc.StatusCode.OK
    assert told == [False, True, False]


def test_files_that_cannot_be_used_are_said(
    authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    other = authority.issue("other", "localhost")
    with pytest.raises(ConfigError, match=r"tls: .*missing: No such file"):
        read(Files("tls", tmp_path / "missing", paper.key_file, None))
    with pytest.raises(ConfigError, match="not a certificate and its key"):
        read(Files("tls", paper.cert_file, other.key_file, None))
    with pytest.raises(ConfigError, match="not a certificate and its key"):
        read(Files("tls", paper.key_file, paper.key_file, None))
    empty = tmp_path / "empty.pem"
    for content in (b"", b"\xff", b"nothing of the kind"):
        empty.write_bytes(content)
        with pytest.raises(ConfigError, match="holds no certificates"):
            read(Files("tls", None, None, empty))


def test_an_encrypted_key_is_said(paper: Paper, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(paper.key_file.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="encrypted"):
        read(Files("tls", paper.cert_file, locked, None))


def test_a_key_for_all_to_read_is_warned_of(paper: Paper, caplog: pytest.LogCaptureFixture) -> None:
    os.chmod(paper.key_file, 0o644)
    with caplog.at_level(logging.WARNING):
        server_credentials(files(paper))
    assert "chmod o-r" in caplog.text


async def test_a_client_checks_the_server(authority: Authority, paper: Paper) -> None:
    async with serving(server_credentials(files(paper))) as address:
        trusting = channel_credentials(Files("upstream_tls", None, None, authority.file))
        assert await code(address, trusting) is grpc.StatusCode.OK
        public = channel_credentials(Files("upstream_tls", None, None, None))
        assert await code(address, public) is grpc.StatusCode.UNAVAILABLE
