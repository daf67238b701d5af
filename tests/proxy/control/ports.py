"""Control ports over a target without traffic, and certificates for them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from proxy.config import Config
from proxy.control.hosting import ControlHost
from proxy.control.policy_file import PolicyFile
from proxy.pb.breakwater.v1 import control_pb2 as pb
from tests.proxy.control.target import PolicyTarget

LIMIT_S = 10.0
TOKEN = "correct-horse-battery"
POLICY = "# Mine.\nmodels:\n  cnn:\n    fpr: 0.01   # share\n"

_SERVICE = pb.DESCRIPTOR.services_by_name["Control"]


@dataclass
class Port:
    """A control port and what is behind it."""

    address: str
    target: PolicyTarget
    host: ControlHost


@contextlib.asynccontextmanager
async def port(folder: Path, *, policy: str = POLICY, **settings: Any) -> AsyncIterator[Port]:
    """A started control port."""
    path = folder / "policy.yaml"
    path.write_text(policy)
    target = PolicyTarget(path)
    control = {"listen": "127.0.0.1:0", **settings}
    host = ControlHost(target, Config.model_validate({"control": control}), PolicyFile(path))
    address = await host.start()
    try:
        yield Port(address, target, host)
    finally:
        await host.stop()


def token_file(folder: Path) -> Path:
    path = folder / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


async def call(channel: grpc.aio.Channel, name: str, request: Any, **options: Any) -> Any:
    """Call a unary method; `token` is shown if given."""
    method = _SERVICE.methods_by_name[name]
    token = options.pop("token", None)
    metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
    ask = channel.unary_unary(
        f"/{_SERVICE.full_name}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(pb, method.output_type.name).FromString,
    )
    return await ask(request, **{"timeout": LIMIT_S, "metadata": metadata, **options})


def watch(channel: grpc.aio.Channel, request: Any = None, **options: Any) -> Any:
    """Open WatchVerdicts."""
    ask = channel.unary_stream(
        f"/{_SERVICE.full_name}/WatchVerdicts",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=pb.Record.FromString,
    )
    return ask(request or pb.WatchVerdictsRequest(), **options)


async def refusal(asked: Any) -> tuple[grpc.StatusCode, str]:
    """The status of a call that fails."""
    try:
        await asked
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError("it did not fail")


class Certificates:
    """A certificate authority with a server's and clients' certificates, by openssl."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.authority = self._make("ca", "-x509", "-subj", "/CN=test authority")
        self.server = self._signed("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self.client = self._signed("alice", "extendedKeyUsage=clientAuth")

    def key_of(self, certificate: Path) -> Path:
        return certificate.with_suffix(".key")

    def _make(self, name: str, *options: str) -> Path:
        path = self._folder / f"{name}.pem"
        new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        files = ("-nodes", "-keyout", str(self.key_of(path)), "-out", str(path), "-days", "2")
        subprocess.run([*new, *files, *options], check=True, capture_output=True)
        return path

    def _signed(self, name: str, extension: str) -> Path:
        authority = ("-CA", str(self.authority), "-CAkey", str(self.key_of(self.authority)))
        return self._make(name, "-x509", *authority, "-subj", f"/CN={name}", "-addext", extension)
