"""The overlay's Valkey, started in a real Redis with the manifest's arguments and users.

What the guide tells users to put into the Secret is what is tried: enough for Breakwater, no more.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from loadtests.query_attacks.redis_server import RedisUnavailable, binary
from proxy.config import Config
from tests.deploy.rendered import KUSTOMIZE, config_of, of_kind, target, value_of
from tests.proxy.history.conftest import Shared
from tests.proxy.history.queries import random_keys

PASSWORD = "only-for-the-test"


@dataclass(frozen=True)
class Server:
    port: int
    folder: Path
    """Where password and certificates are."""

    def client(self, username: str | None = None) -> redis.Redis:
        ca = str(self.folder / "ca.crt")
        password = PASSWORD if username else None
        return redis.Redis(
            port=self.port, ssl=True, ssl_ca_certs=ca, username=username, password=password
        )


def users() -> str:
    """The lines of users.acl, as the guide has them."""
    text = (KUSTOMIZE / "README.md").read_text()
    quoted = text.partition('users.acl="')[2].partition('"')[0]
    lines = [line.strip().replace("$PASSWORD", PASSWORD) for line in quoted.splitlines()]
    assert all(line.startswith("user ") for line in lines)
    return "\n".join(lines) + "\n"


def certificates(folder: Path) -> None:
    """ca.crt, tls.crt and tls.key for the Service's name."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")

    def run(*told: str) -> None:
        subprocess.run([openssl, *told], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(*new, "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    run(*new, "-subj", "/CN=breakwater-history", "-keyout", "tls.key", "-out", "tls.csr")
    (folder / "names").write_text("subjectAltName=DNS:breakwater-history,DNS:localhost")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    run("x509", "-req", "-in", "tls.csr", *signed, "-out", "tls.crt")


def arguments(folder: Path, port: int) -> list[str]:
    """The container's arguments, with the test's port and the files in one folder."""
    (stateful,) = of_kind(target("redis"), "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    found = [str(argument) for argument in container["args"]]
    assert value_of(found, "--port") == "0"  # nothing without TLS
    found[found.index("--tls-port") + 1] = str(port)
    roots = ("/etc/valkey/tls/", "/etc/valkey/users/")
    for at, argument in enumerate(found):
        if argument.startswith(roots) or argument == "/tmp":
            found[at] = str(folder / argument.rpartition("/")[2].removeprefix("tmp"))
    return [*found, "--bind", "127.0.0.1"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        program = binary()
    except RedisUnavailable as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("history")
    certificates(folder)
    (folder / "users.acl").write_text(users())
    (folder / "redis.password").write_text(PASSWORD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *arguments(folder, port)], stdout=log)
        try:
            yield Server(port, folder)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
async def shared(server: Server) -> Shared:
    """A store opened with what the overlay's configuration says."""
    told = Config.model_validate(yaml.safe_load(config_of(target("redis")))).history.shared
    assert told is not None
    assert told.password_file is not None
    assert told.ca_file is not None
    return Shared(
        told.url.replace("breakwater-history:6379", f"localhost:{server.port}"),
        username=told.username,
        password_file=server.folder / told.password_file.name,
        ca_file=server.folder / told.ca_file.name,
    )


async def test_breakwater_remembers_and_finds(shared: Shared) -> None:
    await shared.store.start()
    try:
        await shared.up()
        keys = random_keys(20, seed=1)
        await shared.remember(keys, 1)
        assert len(await shared.numbers(keys)) == 20
        assert not shared.reasons
    finally:
        await shared.store.close()


async def test_its_user_may_do_nothing_else(server: Server, shared: Shared) -> None:
    await shared.store.start()
    await shared.up()  # it is there
    await shared.store.close()
    with server.client("breakwater") as client:
        for command in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("GET", "other")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


async def test_nobody_else_may_do_anything(server: Server, shared: Shared) -> None:
    await shared.store.start()
    await shared.up()
    await shared.store.close()
    with server.client() as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()
    with (
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as plain,  # without TLS
        pytest.raises(redis.exceptions.ConnectionError),
    ):
        plain.ping()
