"""TLS to the model server: who is believed to be it, and what is said when nobody is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from proxy import rpc
from proxy.errors import ConfigError, UpstreamUnavailable
from proxy.identity.settings import UpstreamTls
from proxy.identity.upstream_tls import credentials, reason
from proxy.upstream import Upstream
from tests.proxy.identity.certified import Authority, Paper
from tests.proxy.running import Recorder, recording, running


@asynccontextmanager
async def serving(paper: Paper, accepted: bytes | None = None) -> AsyncIterator[str]:
    """A model server with TLS; with `accepted` its clients must show a certificate."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Recorder(),))
    pair = (paper.key_file.read_bytes(), paper.cert_file.read_bytes())
    shown = grpc.ssl_server_credentials(
        [pair],
        accepted,
        require_client_auth=accepted is not None,
    )
    port = server.add_secure_port("127.0.0.1:0", shown)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def live(address: str, tls: UpstreamTls | None) -> bool:
    upstream = Upstream(address, max_message_bytes=1000, tls=tls)
    try:
        await upstream.call(rpc.RPCS["ServerLive"].path, b"", timeout_s=5)
    except UpstreamUnavailable:
        return False
    finally:
        await upstream.close()
    return True


async def test_the_right_server_is_reached(authority: Authority) -> None:
    paper = authority.issue("triton", "localhost")
    async with serving(paper) as address:
        assert await live(address, UpstreamTls(ca_file=authority.file))
        assert not await live(address, None)


Change = Callable[[Authority, Authority], tuple[Paper, UpstreamTls]]


@pytest.mark.parametrize(
    ("scene", "told"),
    [
        (
            lambda ours, other: (other.issue("t", "localhost"), UpstreamTls(ca_file=ours.file)),
            "not signed by upstream_tls.ca_file",
        ),
        (
            lambda ours, _: (ours.issue("t", "localhost"), UpstreamTls()),
            "not signed by upstream_tls.ca_file",
        ),
        (
            lambda ours, _: (ours.issue("t", "elsewhere"), UpstreamTls(ca_file=ours.file)),
            "for another name",
        ),
        (
            lambda ours, _: (
                ours.issue("t", "localhost"),
                UpstreamTls(ca_file=ours.file, server_name="elsewhere"),
            ),
            "for another name",
        ),
        (
            lambda ours, _: (ours.issue("t", "localhost", days=-1), UpstreamTls(ca_file=ours.file)),
            "expired",
        ),
    ],
    ids=["foreign", "public", "name", "told-name", "expired"],
)
async def test_the_wrong_server_is_not_spoken_to(
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    scene: Change,
    told: str,
) -> None:
    paper, tls = scene(authority, Authority(tmp_path, "other"))
    async with serving(paper) as address:
        assert not await live(address, tls)
    assert told in caplog.text
    assert caplog.text.count("no TLS with the model server") == 1


async def test_a_server_name_stands_for_the_address(authority: Authority) -> None:
    tls = UpstreamTls(ca_file=authority.file, server_name="elsewhere")
    async with serving(authority.issue("t", "elsewhere")) as address:
        assert await live(address, tls)


async def test_a_server_without_tls_is_said(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording() as (_, address):
        assert not await live(address, UpstreamTls(ca_file=authority.file))
    assert "does not speak TLS" in caplog.text


async def test_our_certificate_is_shown_and_renewed(authority: Authority, tmp_path: Path) -> None:
    paper, client = authority.issue("t", "localhost"), authority.issue("us", "us.example")
    other = Authority(tmp_path, "other")
    tls = UpstreamTls(ca_file=authority.file, **vars(client))
    async with serving(paper, authority.file.read_bytes()) as address:
        assert not await live(address, UpstreamTls(ca_file=authority.file))
        other.issue("us", "us.example", to=client)
        upstream = Upstream(address, max_message_bytes=1000, tls=tls)
        with pytest.raises(UpstreamUnavailable):
            await upstream.call(rpc.RPCS["ServerLive"].path, b"", timeout_s=5)
        authority.issue("us", "us.example", to=client)
        upstream.renew_certificates()
        await upstream.call(rpc.RPCS["ServerLive"].path, b"", timeout_s=5)
        client.cert_file.write_text("half a cert")
        upstream.renew_certificates()
        await upstream.call(rpc.RPCS["ServerLive"].path, b"", timeout_s=5)
        await upstream.close()


async def test_the_proxy_becomes_ready_by_tls_and_follows_its_files(authority: Authority) -> None:
    tls = {"ca_file": authority.file}
    async with (
        serving(authority.issue("t", "localhost")) as address,
        running(address, upstream_tls=tls) as sidecar,
    ):
        async with asyncio.timeout(10):
            await sidecar.ready()


def test_files_that_cannot_be_used_are_said(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue("one", "a"), authority.issue("other", "a")
    with pytest.raises(ConfigError, match=r"upstream_tls\.ca_file"):
        credentials(UpstreamTls(ca_file=tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"upstream_tls\.cert_file"):
        credentials(UpstreamTls(cert_file=one.cert_file, key_file=other.key_file))


def test_a_refused_connection_is_no_matter_of_tls() -> None:
    assert reason("failed to connect to all addresses; Connection refused") == ""
