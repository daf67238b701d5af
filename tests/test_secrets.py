"""No secret that the configuration names is shown anywhere, whatever goes right or wrong."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

from loadtests.query_attacks.redis_server import RedisServer, RedisUnavailable
from tests.defended import settings_of
from tests.images import benign, request, tampered
from tests.proxy.identity.certified import Authority
from tests.proxy.running import ask
from tests.proxy.test_cli import served
from tuning.triton import EmbeddedTriton

MODEL = "digits_like_again"
ODD = tampered(benign(8, seed=31))
NAMES = ("token", "history", "secrecy", "audit", "capture", "redis", "collector")
SECRETS = {name: f"canary-of-{name}-{'7f3a9c' * 4}" for name in NAMES}
PATHS = (
    *("/", "/metrics", "/config", "/history", "/records", "/drift", "/ready", "/live"),
    *("/console/", "/api/overview", "/api/policy", "/policy", "/nothing"),
)
HOSTILE = "\x1b[2J<script>alert(1)</script>"


@pytest.fixture
def redis(tmp_path: Path) -> Any:
    """One that wants another password."""
    try:
        server = RedisServer(tmp_path, requirepass="another")
    except RedisUnavailable as reason:
        pytest.skip(str(reason))
    with server:
        yield server


def forms(secret: bytes) -> list[bytes]:
    """How a secret could show."""
    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")]


def write(folder: Path, calibrations: Path, redis_url: str) -> Path:
    for name, secret in SECRETS.items():
        (folder / f"{name}.key").write_text(secret + "\n")
        (folder / f"{name}.key").chmod(0o600)
    (folder / "collector.key").write_text(f"api-key: {SECRETS['collector']}\n")
    paper = Authority(folder).issue("front", "localhost", "127.0.0.1")
    hidden = {"secrecy": {"key_file": "secrecy.key"}}
    flagging = {"action": "flag", "query_attacks": {"fpr": 0.05}}
    models = settings_of(calibrations, {MODEL: flagging, "digits_like": hidden})
    document = {
        "models": json.loads(json.dumps(models, default=str)),
        "principal_header": "x-user",
        "control": {
            "listen": "127.0.0.1:0",
            "token_file": "token.key",
            "cert_file": str(paper.cert_file),
            "key_file": str(paper.key_file),
        },
        "history": {
            "key_file": "history.key",
            "shared": {"url": redis_url, "password_file": "redis.key"},
        },
        "audit": {"path": "audit.jsonl", "key_file": "audit.key"},
        "capture": {"folder": str(folder / "captures"), "key_file": "capture.key"},
        "tracing": {"endpoint": "http://127.0.0.1:1", "headers_file": "collector.key"},
    }
    path = folder / "breakwater.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def check(path: Path, *options: str) -> bytes:
    """All that `breakwater check` says."""
    command = [sys.executable, "-m", "proxy", "check", "--config", str(path), *options]
    ran = subprocess.run(command, capture_output=True)
    return ran.stdout + ran.stderr


@pytest.mark.triton
async def test_no_secret_is_shown(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, redis: RedisServer
) -> None:
    path = write(tmp_path, calibrations, redis.url)
    shown: dict[str, bytes] = {"check": check(path), "schema": check(path, "--schema")}
    async with served(triton.grpc_address, "--config", str(path)) as (process, channel):
        for principal in ("somebody", HOSTILE.encode().hex()):
            sent = (("x-user", principal),)
            reply = await ask(channel, "ModelInfer", request(MODEL, ODD), metadata=sent)
            assert reply.code is grpc.StatusCode.OK
            shown[f"answer to {principal}"] = repr(reply).encode()
        for authorization in ("", "Bearer wrong", f"Bearer {SECRETS['token']}"):
            for where in PATHS:
                shown[f"{where} {authorization[:8]}"] = await got(
                    process.admin, where, authorization
                )
        broken = path.read_text().replace("fpr:", "fpr_:")
        path.write_text(broken)  # an error that quotes the file
        process.signal(signal.SIGHUP)
        await process.says("fpr_")
        shown["command line"] = command_line(process.pid)
        process.signal(signal.SIGINT)
        await process.ended()
        shown["log"] = "\n".join(process.log).encode()
    shown["audit"] = (tmp_path / "audit.jsonl").read_bytes()
    for capture in (tmp_path / "captures").rglob("*"):
        shown[str(capture)] = capture.read_bytes() if capture.is_file() else b""
    shown["check of a broken file"] = check(path)
    assert shown["audit"].count(b"\n") >= 1, "something was written"
    assert b"WRONGPASS" in shown["log"] or b"password" in shown["log"], "Redis refused"
    private = (tmp_path / "front.key").read_bytes().splitlines()[2]
    secrets = [*(each.encode() for each in SECRETS.values()), private]
    found = [
        (where, secret[:20])
        for where, text in shown.items()
        for secret in secrets
        if any(form in text for form in forms(secret))
    ]
    assert found == []
    assert [where for where, text in shown.items() if b"\x1b[2J" in text] == []


def command_line(pid: int) -> bytes:
    """What every user of the machine sees of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def got(address: str, path: str, authorization: str) -> bytes:
    """The whole answer of the admin port, headers too."""
    headers = {"Authorization": authorization} if authorization else {}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"http://{address}{path}") as response,
    ):
        return repr(response.headers).encode() + await response.read()


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "breakwater.yaml"
    secret = SECRETS["redis"]
    shared = {"url": f"redis://user:{secret}@127.0.0.1:6379"}
    path.write_text(yaml.safe_dump({"history": {"shared": shared}}))
    told = check(path)
    assert b"password_file" in told
    assert secret.encode() not in told


def test_short_secrets_are_refused_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "token.key").write_text("hunter2")
    path = tmp_path / "breakwater.yaml"
    path.write_text(yaml.safe_dump({"control": {"token_file": "token.key"}}))
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(path)]
    ran = subprocess.run(command, capture_output=True, timeout=60)
    assert ran.returncode == 2
    assert b"hunter2" not in ran.stdout + ran.stderr
