"""The front with TLS: who gets in, as whom, and what a change of the files does."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proxy.config import Config
from proxy.errors import ConfigError
from proxy.identity.rotation import FrontTls
from proxy.server import Server
from proxy.tasks import Tasks
from tests.builders import infer_request
from tests.proxy.identity.certified import Authority, Paper
from tests.proxy.running import Recorder, ask, open_stream, recording, until

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
INFER = infer_request({"x": np.zeros((1, 4), np.float32)}, model="any")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def paper(authority: Authority) -> Paper:
    return authority.issue("server", "localhost", "127.0.0.1")


@pytest.fixture
async def recorder() -> AsyncIterator[tuple[Recorder, str]]:
    async with recording() as both:
        yield both


def tls(paper: Paper, ca: Path | None = None) -> dict[str, Any]:
    return {
        "cert_file": paper.cert_file,
        "key_file": paper.key_file,
        **({} if ca is None else {"client_ca_file": ca}),
    }


async def started(upstream: str, **settings: Any) -> Server:
    where = {
        **{"upstream": upstream, "listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        **{"drain_delay_seconds": 0, "max_connection_age_s": 0},
    }
    server = Server(Config.model_validate({**where, **settings}))
    await server.start()
    return server


def connect(server: Server, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(server.address, options=OWN_CONNECTION)
    return grpc.aio.secure_channel(server.address, credentials, options=OWN_CONNECTION)


async def code(server: Server, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """What a call on a new connection ends with."""
    async with connect(server, credentials) as channel:
        return (await ask(channel, "ServerLive", b"")).code


async def test_only_tls_of_the_right_authority_gets_in(
    recorder: tuple[Recorder, str], authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    server = await started(recorder[1], tls=tls(paper))
    try:
        assert await code(server, authority.client()) is OK
        assert await code(server, None) is UNAVAILABLE
        assert await code(server, Authority(tmp_path, "other").client()) is UNAVAILABLE
        _, metrics = await server.metrics()
        assert b'breakwater_certificate_expiry_timestamp_seconds{which="tls"}' in metrics
    finally:
        await server.stop()


async def test_clients_must_show_a_certificate_that_is_ours_and_valid(
    recorder: tuple[Recorder, str], authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "other").issue("strange", "client.example")
    mixed = grpc.ssl_channel_credentials(
        authority.file.read_bytes(), stranger.key_file.read_bytes(), stranger.cert_file.read_bytes()
    )
    server = await started(recorder[1], tls=tls(paper, authority.file))
    try:
        assert await code(server, authority.client(authority.issue("ours", "c.example"))) is OK
        old = authority.client(authority.issue("old", "c.example", days=-1))
        for shown in (authority.client(), mixed, old):
            assert await code(server, shown) is UNAVAILABLE
        assert len(recorder[0].of("ServerLive")) == 1
    finally:
        await server.stop()


async def test_old_versions_of_tls_are_not_spoken(
    recorder: tuple[Recorder, str], authority: Authority, paper: Paper
) -> None:
    server = await started(recorder[1], tls=tls(paper))
    host, _, port = server.address.partition(":")

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

    try:
        assert await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1"),
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            await asyncio.to_thread(shake, ssl.TLSVersion.TLSv1_1)
    finally:
        await server.stop()


async def test_a_new_certificate_is_in_use_while_calls_and_a_stream_go_on(
    recorder: tuple[Recorder, str], authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    async def echo(call: Any, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            await context.write(data)

    recorder[0].stream = echo
    other = Authority(tmp_path, "other")
    server = await started(recorder[1], tls=tls(paper))
    stop, codes, tasks = asyncio.Event(), [], Tasks()

    async def keep_calling(channel: grpc.aio.Channel) -> None:
        while not stop.is_set():
            codes.append((await ask(channel, "ServerLive", b"")).code)

    try:
        async with connect(server, authority.client()) as channel:
            stream = open_stream(channel)
            await recorder[0].expect("ModelStreamInfer")
            calling = tasks.start(keep_calling(channel))
            other.issue("server", "localhost", "127.0.0.1", to=paper)

            async def is_new() -> bool:
                return await code(server, other.client()) is OK

            await until(is_new)
            assert await code(server, authority.client()) is UNAVAILABLE
            before = len(codes)

            async def has_called() -> bool:
                return len(codes) > before + 5

            await until(has_called)
            stop.set()
            await calling
            assert set(codes) == {OK}
            assert not stream.done()
            stream.cancel()
    finally:
        await server.stop()


async def test_a_withdrawn_authority_opens_nothing_any_more(
    recorder: tuple[Recorder, str], authority: Authority, paper: Paper, tmp_path: Path
) -> None:
    accepted = tmp_path / "accepted.pem"
    shutil.copyfile(authority.file, accepted)
    ours = authority.client(authority.issue("ours", "c.example"))
    server = await started(recorder[1], tls=tls(paper, accepted))
    try:
        assert await code(server, ours) is OK
        shutil.copyfile(Authority(tmp_path, "other").file, accepted)

        async def is_refused() -> bool:
            return await code(server, ours) is UNAVAILABLE

        await until(is_refused)
    finally:
        await server.stop()


def test_a_pair_that_does_not_fit_changes_nothing_until_it_does(
    authority: Authority, paper: Paper, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[int] = []
    ends: list[tuple[str, float]] = []
    settings = Config.model_validate({"tls": tls(paper)}).tls
    assert settings is not None
    front = FrontTls(settings, lambda *told: ends.append(told), lambda: failures.append(1))
    rotation = front.rotation
    first = rotation.certificate
    fresh = authority.issue("fresh", "localhost", "127.0.0.1", days=30)
    shutil.copyfile(fresh.cert_file, paper.cert_file)  # a writer half way
    for _ in range(4):
        rotation.look()
    assert (rotation.certificate, failures) == (first, [1]), "said once"
    assert "the old certificate stays in use" in caplog.text
    shutil.copyfile(fresh.key_file, paper.key_file)
    for _ in range(3):
        rotation.look()
    assert rotation.certificate.chain == fresh.cert_file.read_bytes()
    paper.cert_file.unlink()
    for _ in range(3):
        rotation.look()
    assert rotation.certificate.chain == fresh.cert_file.read_bytes()
    assert len(failures) == 2
    assert len(ends) == 2
    assert ends[1][1] > ends[0][1]


def test_files_that_do_not_fit_do_not_start(authority: Authority, paper: Paper) -> None:
    other = authority.issue("other", "localhost")
    with pytest.raises(ConfigError, match=r"tls\.cert_file, tls\.key_file"):
        Server(
            Config.model_validate(
                {"tls": {"cert_file": paper.cert_file, "key_file": other.key_file}}
            )
        )


async def principal_of(server: Server, channel: grpc.aio.Channel, *said: str) -> str:
    """Under which name a call is counted: its limit lets one name through."""
    metadata = tuple(("x-user", name) for name in said)
    return (await ask(channel, "ModelInfer", INFER, metadata=metadata)).code.name


async def test_only_a_trusted_proxy_says_who_calls(
    recorder: tuple[Recorder, str], authority: Authority, paper: Paper
) -> None:
    gateway = authority.client(authority.issue("gateway", "gateway.example"))
    client = authority.client(authority.issue("client", "client.example"))
    settings = {
        **{"tls": tls(paper, authority.file), "principal_header": "x-user"},
        "trusted_proxies": ["gateway.example"],
        "limits": {
            "default": {"max_message_bytes": 1},
            "principals": {"alice": {}},
        },
    }
    server = await started(recorder[1], **settings)
    try:
        async with connect(server, gateway) as trusted, connect(server, client) as untrusted:
            assert await principal_of(server, trusted, "alice") == "OK"
            assert await principal_of(server, trusted, "bob") == "RESOURCE_EXHAUSTED"
            assert await principal_of(server, trusted, "alice", "bob") == "INVALID_ARGUMENT"
            assert await principal_of(server, untrusted, "alice") == "RESOURCE_EXHAUSTED"
            assert await principal_of(server, untrusted, "alice", "b") == "RESOURCE_EXHAUSTED"
            assert await principal_of(server, untrusted, "x" * 1_000_000) != "OK"
            assert await principal_of(server, trusted, "alice") == "OK"
    finally:
        await server.stop()


async def test_a_certificate_names_the_caller(
    recorder: tuple[Recorder, str], authority: Authority, paper: Paper
) -> None:
    client = authority.client(authority.issue("client", "client.example"))
    other = authority.client(authority.issue("another", "another.example"))
    limits = {"default": {"max_message_bytes": 1}, "principals": {"client.example": {}}}
    server = await started(recorder[1], tls=tls(paper, authority.file), limits=limits)
    try:
        async with connect(server, client) as known, connect(server, other) as unknown:
            assert await principal_of(server, known) == "OK"
            assert await principal_of(server, unknown) == "RESOURCE_EXHAUSTED"
            assert await principal_of(server, unknown, "client.example") == "RESOURCE_EXHAUSTED"
    finally:
        await server.stop()
