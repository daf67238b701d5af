"""`breakwater drain` against a real process, and against what is none."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from tests.proxy.running import Call, Recorder, ask, until
from tests.proxy.test_cli import served
from tests.proxy.test_drain import INFER, echo

BRISK = "drain_delay_seconds: 0.1\nmax_connection_age_s: 0\ndrain_seconds: 20\n"


def _config(folder: Path, text: str = "") -> tuple[str, str]:
    path = folder / "c.yaml"
    path.write_text(BRISK + text)
    return "--config", str(path)


async def _drain(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["drain", *arguments])


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_with_wait_it_is_drained_and_stays_until_sigterm(
    workers: str, recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    release = asyncio.Event()

    async def held(call: Call, context: object) -> bytes:
        await release.wait()
        return call.data

    recorder[0].answers["ModelInfer"] = held
    options = ("--workers", workers, *_config(tmp_path))
    async with served(recorder[1], *options) as (process, channel):
        asking = asyncio.ensure_future(ask(channel, "ModelInfer", INFER))
        await recorder[0].expect("ModelInfer")
        waiting = asyncio.ensure_future(_drain("--admin", process.admin, "--wait"))

        async def is_draining() -> bool:
            status, body = await process.get("/ready")
            return status == 503 and '"draining": true' in body

        await until(is_draining)
        assert not waiting.done()
        release.set()
        assert (await asking).data == INFER
        assert await waiting == 0
        # Still there, for whatever else in the pod needs it.
        assert '"drained": true' in (await process.get("/ready"))[1]
        recorder[0].answers["ModelInfer"] = echo
        assert (await ask(channel, "ModelInfer", INFER)).data == INFER
        assert await _drain("--admin", process.admin, "--wait") == 0  # again is harmless
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_without_wait_the_process_exits(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    async with served(recorder[1], *_config(tmp_path)) as (process, _):
        assert await _drain("--admin", process.admin) == 0
        assert await process.ended() == 0


async def test_it_says_what_is_still_in_flight_after_the_timeout(
    recorder: tuple[Recorder, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def held(call: Call, context: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    recorder[0].answers["ModelInfer"] = held
    async with served(recorder[1], *_config(tmp_path)) as (process, channel):
        asking = asyncio.ensure_future(ask(channel, "ModelInfer", INFER))
        await recorder[0].expect("ModelInfer")
        wait = ("--wait", "--timeout", "0.3")
        assert await _drain("--admin", process.admin, *wait) == 1
        assert "not drained after 0.3 s: 1 in flight" in capsys.readouterr().err
        asking.cancel()


async def test_it_shows_the_token(
    recorder: tuple[Recorder, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "control.token"
    token.write_text("a-token-that-nobody-guesses-0123456789\n")
    token.chmod(0o600)
    control = f"control: {{listen: 127.0.0.1:0, token_file: {token}}}\n"
    async with served(recorder[1], *_config(tmp_path, control)) as (process, _):
        assert await _drain("--admin", process.admin) == 1
        assert "wants the token" in capsys.readouterr().err
        assert await _drain("--admin", process.admin, "--token-file", str(token)) == 0
        assert await process.ended() == 0


def test_nobody_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        where = f"127.0.0.1:{bound.getsockname()[1]}"
        assert main(["drain", "--admin", where, "--wait"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"breakwater: no answer from {where}: ")
    assert "--admin" in error


@pytest.mark.parametrize(
    "answer",
    [b"hello\r\n", b"HTTP/1.0 200 OK\r\n\r\n<html>", b'HTTP/1.0 202 OK\r\n\r\n{"in_flight": "x"}'],
    ids=["no HTTP", "a page", "another JSON"],
)
async def test_a_stranger_is_named(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        assert await _drain("--admin", f"{host}:{port}") == 1
    assert "is not the admin port of a Breakwater" in capsys.readouterr().err


def test_it_starts_quickly() -> None:
    script = (
        "import sys; from proxy.cli import main; main(['drain', '--admin', '127.0.0.1:1']); "
        "print([m for m in ('torch', 'grpc', 'numpy', 'pydantic', 'rich') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
