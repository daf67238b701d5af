"""The admin port with TLS, and the commands that ask by TLS."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from proxy.config import Config
from proxy.errors import ConfigError
from proxy.identity.admin_tls import AdminTls, refuse_open_admin
from proxy.identity.settings import ServerTls
from proxy.server import Server
from tests.proxy.identity.certified import Authority, Paper
from tests.proxy.running import recording


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def paper(authority: Authority) -> Paper:
    return authority.issue("server", "localhost", "127.0.0.1")


@pytest.fixture
async def sidecar(authority: Authority, paper: Paper) -> AsyncIterator[Server]:
    tls = {**vars(paper), "client_ca_file": authority.file}
    places = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain_delay_seconds": 0}
    async with recording() as (_, address):
        settings = {**places, "upstream": address, "tls": vars(paper), "admin_tls": tls}
        server = Server(Config.model_validate(settings))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


def shown(authority: Authority, paper: Paper | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if paper is not None:
        context.load_cert_chain(paper.cert_file, paper.key_file)
    return context


async def get(server: Server, context: ssl.SSLContext | None, scheme: str = "https") -> int:
    url = f"{scheme}://{server.admin_address}/ready"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context or True) as answer:
        return answer.status


async def breakwater(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_only_certificates_of_ours_reach_the_admin_port(
    sidecar: Server, authority: Authority, tmp_path: Path
) -> None:
    ours = authority.issue("ops", "ops.example")
    assert await get(sidecar, shown(authority, ours)) in (200, 503)
    stranger = Authority(tmp_path, "other").issue("strange", "ops.example")
    old = authority.issue("old", "ops.example", days=-1)
    for paper in (None, stranger, old):
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await get(sidecar, shown(authority, paper))
    with pytest.raises(aiohttp.ClientError):
        await get(sidecar, None, "http")


async def test_health_and_drain_ask_by_tls(
    sidecar: Server, authority: Authority, tmp_path: Path
) -> None:
    ours = authority.issue("ops", "ops.example")
    ca, mine = ("--tls-ca", str(authority.file)), ("--tls-cert", str(ours.cert_file))
    health = ("health", "--service", "liveness", "--address", sidecar.address, "--timeout", "5")
    assert await breakwater(*health, *ca) == (0, "SERVING\n")
    assert (await breakwater(*health))[0] == 2
    other = Authority(tmp_path, "other")
    code, said = await breakwater(*health, "--tls-ca", str(other.file))
    assert (code, "certificate" in said) == (2, True)
    assert (await breakwater(*health, *ca, *mine))[0] == 2
    drain = ("drain", "--admin", sidecar.admin_address)
    assert (await breakwater(*drain))[0] == 1
    assert (await breakwater(*drain, *ca))[0] == 1
    code, said = await breakwater(*drain, "--tls-ca", str(other.file))
    assert (code, "certificate" in said) == (1, True)
    named = ("--tls-key", str(ours.key_file), "--tls-server-name")
    assert (await breakwater(*drain, *ca, *mine, *named, "elsewhere"))[0] == 1
    assert not (await sidecar.status()).draining
    assert await breakwater(*drain, *ca, *mine, *named, "localhost") == (0, "")
    assert (await sidecar.status()).draining


def test_a_new_certificate_is_taken_into_the_context(authority: Authority, paper: Paper) -> None:
    admin = AdminTls(ServerTls(cert_file=paper.cert_file, key_file=paper.key_file))
    first = admin.rotation.certificate
    authority.issue("server", "localhost", to=paper)
    assert admin.rotation.reload()
    assert admin.rotation.certificate != first
    paper.key_file.write_text("half a k")
    assert not admin.rotation.reload()


def test_the_open_port_wants_a_token_or_certificates(authority: Authority, paper: Paper) -> None:
    plain = ServerTls(cert_file=paper.cert_file, key_file=paper.key_file)
    with_ca = plain.model_copy(update={"client_ca_file": authority.file})
    for tls in (None, plain):
        with pytest.raises(ConfigError, match="not on loopback"):
            refuse_open_admin("0.0.0.0:9090", tls, loopback=False, token=False)
        refuse_open_admin("0.0.0.0:9090", tls, loopback=False, token=True)
    refuse_open_admin("0.0.0.0:9090", with_ca, loopback=False, token=False)
    refuse_open_admin("127.0.0.1:9090", None, loopback=True, token=False)
