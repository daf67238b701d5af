"""`breakwater health` against real servers: ours, strangers, silent ones, none at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proxy.cli import main
from proxy.health import HealthServicer
from proxy.probe import Health, probe

LIMIT_S = 10.0
_CHECK = "Check"


@contextlib.contextmanager
def answering(answer: bytes | grpc.StatusCode) -> Iterator[str]:
    """A server whose Check always answers this."""

    def check(_: bytes, context: grpc.ServicerContext) -> bytes:
        if isinstance(answer, bytes):
            return answer
        context.abort(answer, "\x1b[2Jwhat a stranger says")

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {_CHECK: grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


async def test_it_tells_what_our_own_server_says() -> None:
    servicer, server = HealthServicer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    servicer.publish({"": True, "liveness": True, "readiness": False})
    found = [
        (await asyncio.to_thread(probe, address, service, timeout_s=LIMIT_S))[0]
        for service in ("", "liveness", "readiness", "unknown")
    ]
    await server.stop(None)
    assert found == [Health.SERVING, Health.SERVING, Health.NOT_SERVING, Health.NOT_SERVING]


@pytest.mark.parametrize(
    ("answer", "expected", "text"),
    [
        (b"", Health.NOT_SERVING, "UNKNOWN"),
        (health_pb2.HealthCheckResponse(status=2).SerializeToString(), 1, "NOT_SERVING"),
        (b"\x08\x63", Health.NOT_SERVING, "status 99"),  # of a later version of the protocol
        (b"\xff\xff\xff", Health.UNREACHABLE, "not in grpc.health.v1"),
        (grpc.StatusCode.UNIMPLEMENTED, Health.UNREACHABLE, "does not speak"),
        (grpc.StatusCode.PERMISSION_DENIED, Health.UNREACHABLE, "PERMISSION_DENIED"),
        (grpc.StatusCode.NOT_FOUND, Health.NOT_SERVING, "SERVICE_UNKNOWN"),
    ],
)
def test_strangers_are_told_apart(
    answer: bytes | grpc.StatusCode, expected: int, text: str
) -> None:
    with answering(answer) as address:
        found, said = probe(address, "", timeout_s=LIMIT_S)
    assert found == expected
    assert text in said
    assert said.isprintable()


def test_nobody_there_is_unreachable() -> None:
    assert probe(closed_port(), "", timeout_s=LIMIT_S)[0] is Health.UNREACHABLE


def test_who_says_nothing_is_given_up_in_time() -> None:
    with silent() as address:
        begun = time.monotonic()
        found, _ = probe(address, "", timeout_s=0.3)
    assert found is Health.UNREACHABLE
    assert time.monotonic() - begun < LIMIT_S


def test_the_environment_does_not_send_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{closed_port()}")
    monkeypatch.setenv("no_proxy", "")
    with answering(health_pb2.HealthCheckResponse(status=1).SerializeToString()) as address:
        assert probe(address, "", timeout_s=LIMIT_S)[0] is Health.SERVING


def test_the_command_exits_as_it_finds(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(health_pb2.HealthCheckResponse(status=1).SerializeToString()) as address:
        assert main(["health", "--address", address, "--timeout", "10"]) == 0
    assert capsys.readouterr().out == "SERVING\n"
    assert main(["health", "--address", closed_port(), "--service", "readiness"]) == 2


@pytest.mark.parametrize(
    "arguments", [["--timeout", "0"], ["--timeout", "nan"], ["--address", "8101"]]
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["health", *arguments])
    assert exit_.value.code == 2


def test_it_starts_without_the_heavy_packages() -> None:
    code = (
        "import sys; from proxy.cli import main\n"
        "main(['health', '--address', '127.0.0.1:1', '--timeout', '0.1'])\n"
        "print({'torch', 'numpy', 'aiohttp', 'pydantic'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "set()"
