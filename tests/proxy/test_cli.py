"""The command, as processes: what it prints, how it ends, what it answers to signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy import __version__
from proxy.cli import main
from tests.builders import infer_request
from tests.proxy.running import LIMIT_S, UNBOUNDED, Call, Recorder, ask, until
from tuning.triton import EmbeddedTriton

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("serve", "calibrate", "card", "check", "history", "drain", "demo")
INFER = infer_request({"image": np.zeros((1, 3, 32, 32), np.float32)}, model="digits_like")


class Process:
    """A `breakwater serve` and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log: list[str] = []
        self.address = self.admin = ""
        self._grew = asyncio.Condition()
        self._reading = asyncio.ensure_future(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    def maps(self) -> str:
        """Everything it has mapped, shared libraries among them."""
        return Path(f"/proc/{self.pid}/maps").read_text()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            async with self._grew:
                self.log.append(line.decode().rstrip())
                self._grew.notify_all()
        async with self._grew:
            self._grew.notify_all()

    async def says(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait for so many lines that match; the last of them."""

        def found() -> list[re.Match[str]]:
            return [match for line in self.log if (match := re.search(pattern, line))]

        async with asyncio.timeout(30), self._grew:
            await self._grew.wait_for(lambda: len(found()) >= times or self._reading.done())
        assert len(found()) >= times, "\n".join(self.log)
        return found()[times - 1]

    async def is_up(self) -> None:
        self.address = (await self.says(r"listening on (\S+:\d+)")).group(1)
        self.admin = (await self.says(r"admin on (\S+)$")).group(1)
        await until(self.is_ready, limit_s=60)  # torch may have to be loaded first

    async def is_ready(self) -> bool:
        try:
            return (await self.get("/ready"))[0] == 200
        except aiohttp.ClientError:
            return False

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://{self.admin}{path}") as response,
        ):
            return response.status, await response.text()

    async def metric(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families((await self.get("/metrics"))[1])
            for sample in family.samples
            if sample.name == f"breakwater_{name}" and labels.items() <= sample.labels.items()
        )

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        code = await asyncio.wait_for(self._process.wait(), 30)
        await self._reading
        return code

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self.ended()


@contextlib.asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Process]:
    """A process that is killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as temporary:  # what a killed one leaves goes with it
        process = Process(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "proxy.cli", *arguments),
                cwd=ROOT,
                env={**os.environ, "TMPDIR": temporary},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        )
        try:
            yield process
        finally:
            await process.kill()


def _impatient(folder: Path, drain_seconds: float = 30) -> tuple[str, str]:
    """Options for a drain that waits for no client to go; test_drain.py has the others."""
    path = folder / "impatient.yaml"
    path.write_text(
        f"drain_seconds: {drain_seconds}\ndrain_delay_seconds: 0\nmax_connection_age_s: 0\n"
    )
    return "--config", str(path)


@contextlib.asynccontextmanager
async def served(upstream: str, *arguments: str) -> AsyncIterator[tuple[Process, grpc.aio.Channel]]:
    """A ready `breakwater serve` on free ports, and a connection to it."""
    addresses = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", upstream)
    async with started("serve", *addresses, *arguments) as process:
        await process.is_up()
        async with grpc.aio.insecure_channel(process.address, options=UNBOUNDED) as channel:
            yield process, channel


# -- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: breakwater {command}")
    assert len(text.splitlines()) > 5


def test_help_names_every_command_and_no_hidden_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (["--help"], ["serve", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
    text = capsys.readouterr().out
    assert all(re.search(rf"^ +{command}\b", text, re.MULTILINE) for command in COMMANDS)
    assert "--worker-" not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert (exit_.value.code, capsys.readouterr().out) == (0, f"breakwater {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["sail"], ["serve", "--workers", "0"], ["serve", "--port", "1"]),
        *(["history", "--admin", "9090"], ["history", "--admin", "localhost:99999"]),
        *(["history", "--clear", "eve", "--clear-all"], ["history", "--clear-all", "--watch"]),
        *(
            ["history", "--watch", "0"],
            ["history", "--watch", "nan"],
            ["history", "--watch", "soon"],
        ),
    ],
)
def test_misuse_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: breakwater" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--listen", "nonsense"), "--listen nonsense"),
        (("--listen", "127.0.0.1:99999"), "--listen 127.0.0.1:99999"),
        (("--admin", "127.0.0.1:99999"), "--admin 127.0.0.1:99999"),
        (("--upstream", "8001"), "--upstream 8001"),
        (("--config", "/nonexistent.yaml"), "/nonexistent.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said(
    arguments: tuple[str, ...], text: str, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--workers", workers, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("breakwater: ")
    assert text in error
    assert "Traceback" not in error


def test_a_bad_file_is_named_with_line_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("listen: 127.0.0.1:0\nmax_in_fligth: 3\n")
    assert main(["serve", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}:2:1: max_in_fligth: unknown key; did you mean 'max_in_flight'?" in error


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("option", ["--listen", "--admin"])
async def test_a_taken_port_ends_it_with_a_clear_text(option: str, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        places = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", option: address}
        arguments = [text for pair in places.items() for text in pair]
        async with started("serve", "--workers", workers, *arguments) as process:
            assert await process.ended() == 2
    text = "\n".join(process.log)
    assert address in text
    assert "Traceback" not in text


# -- serve -----------------------------------------------------------------------------------------


@pytest.mark.triton
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "drain"])
async def test_a_real_server_drains(how: str, triton: EmbeddedTriton, tmp_path: Path) -> None:
    slow = infer_request(
        {"image": np.zeros((1, 3, 32, 32), np.float32)}, model="slow", parameters={"delay_ms": 400}
    )
    async with served(triton.grpc_address, *_impatient(tmp_path)) as (process, channel):
        # Without detectors there is nothing to compute, so the half gigabyte is not loaded.
        assert "libtorch" not in process.maps()
        assert (await ask(channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK
        asking = asyncio.ensure_future(ask(channel, "ModelInfer", slow))

        async def is_busy() -> bool:
            return await process.metric("in_flight") == 1

        await until(is_busy)
        if how == "drain":
            assert (await process.get("/drain", "POST"))[0] == 202
        else:
            process.signal(signal.Signals[how])
        await process.says("draining, 1 in flight")
        refused = await ask(channel, "ModelInfer", INFER)
        assert refused.code is grpc.StatusCode.UNAVAILABLE
        assert (await asking).code is grpc.StatusCode.OK
        assert await process.ended() == 0
    assert not [line for line in process.log if "ERROR" in line or "Traceback" in line]


async def test_a_drain_that_takes_too_long_still_ends_well(
    recorder: tuple[Recorder, str], tmp_path: Path
) -> None:
    async def never(call: Call, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.Event().wait()
        return b""

    recorder[0].answers["ModelInfer"] = never
    async with served(recorder[1], *_impatient(tmp_path, 0.1)) as (process, channel):
        asking = asyncio.ensure_future(ask(channel, "ModelInfer", INFER))
        call = await recorder[0].expect("ModelInfer")
        process.signal(signal.SIGTERM)
        assert (await asking).code is not grpc.StatusCode.OK
        await asyncio.wait_for(call.cancelled.wait(), LIMIT_S)
        assert await process.ended() == 0
        await process.says("gave up on 1 requests")


async def test_sighup_reads_the_file_again(recorder: tuple[Recorder, str], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("rpc: {allow: []}\n")
    async with served(recorder[1], "--config", str(path)) as (process, channel):
        assert (await ask(channel, "ModelConfig", b"")).code is grpc.StatusCode.PERMISSION_DENIED
        path.write_text("rpc: {allow: [model-config]}\n")
        process.signal(signal.SIGHUP)
        await process.says("generation 2 in force")
        assert (await ask(channel, "ModelConfig", b"")).code is grpc.StatusCode.OK
        path.write_text("rpc: {allow: nothing}\n")
        process.signal(signal.SIGHUP)
        await process.says("configuration refused, the old one stays in force")
        assert (await ask(channel, "ModelConfig", b"")).code is grpc.StatusCode.OK
        assert await process.metric("config_last_reload_successful") == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_history_of_a_running_server(
    recorder: tuple[Recorder, str], workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(recorder[1], "--workers", workers) as (process, _):
        asked = ["history", "--admin", process.admin]
        assert await asyncio.to_thread(main, asked) == 0
        assert "0 queries remembered here. Shared store: none." in capsys.readouterr().out
        assert await asyncio.to_thread(main, [*asked, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer == {"remembered": 0, "shared": None, "principals": []}
        assert await asyncio.to_thread(main, [*asked, "--clear-all"]) == 0
        assert "Nothing was held against anybody" in capsys.readouterr().out


async def test_sighup_without_a_file_harms_nothing(recorder: tuple[Recorder, str]) -> None:
    async with served(recorder[1]) as (process, channel):
        process.signal(signal.SIGHUP)
        await process.says("nothing to reload")
        assert (await ask(channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK


# -- several workers -------------------------------------------------------------------------------


def _workers(process: Process) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


@pytest.mark.triton
async def test_two_workers_are_one_server(triton: EmbeddedTriton) -> None:
    async with served(triton.grpc_address, "--workers", "2") as (process, _):

        async def both_ready() -> bool:
            return '"workers_ready": 2' in (await process.get("/ready"))[1]

        await until(both_ready, limit_s=30)
        total = 0

        async def send(n: int) -> None:
            nonlocal total
            for _ in range(n):
                # A connection each: the kernel picks a worker for every one.
                async with grpc.aio.insecure_channel(
                    process.address, options=[("grpc.use_local_subchannel_pool", 1)]
                ) as channel:
                    reply = await ask(channel, "ModelInfer", INFER)
                    assert reply.code is grpc.StatusCode.OK
                    total += 1

        async def all_counted() -> bool:
            return await process.metric("requests_total", outcome="ok") == total

        await send(12)
        await until(all_counted)
        assert await process.metric("workers") == 2

        first, second = _workers(process)
        os.kill(first, signal.SIGKILL)
        await process.says("worker . ended with code -9")
        await until(both_ready, limit_s=30)
        assert second in _workers(process)
        assert first not in _workers(process)
        await send(12)
        await until(all_counted)  # with what the dead one had counted
        assert await process.metric("worker_restarts_total") == 1

        process.signal(signal.SIGHUP)  # there is no file; nobody may die of it
        await process.says("nothing to reload", times=2)
        assert (await process.get("/drain?now=1", "POST"))[0] == 202
        assert await process.ended() == 0


async def test_workers_do_not_outlive_a_killed_supervisor(recorder: tuple[Recorder, str]) -> None:
    async with served(recorder[1], "--workers", "2") as (process, channel):
        workers = _workers(process)
        assert (await ask(channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK
        process.signal(signal.SIGKILL)

        async def are_gone() -> bool:
            return not any(map(_is_alive, workers))

        await until(are_gone, limit_s=30)


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # nobody may be there to collect it


@pytest.mark.triton
async def test_a_model_nobody_listed_is_reported_by_check(
    triton: EmbeddedTriton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"upstream: {triton.grpc_address}\nmodels: {{digits_like: {{}}}}\n")
    status = await asyncio.to_thread(main, ["check", "--config", str(path)])
    assert status == 0
    assert "digits_like" in capsys.readouterr().out


def test_check_prints_the_schema_and_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--schema"]) == 0
    assert '"max_in_flight"' in capsys.readouterr().out
    assert main(["check", "--list"]) == 0
    assert "feature_squeezing" in capsys.readouterr().out


def test_a_log_level_nobody_knows_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BREAKWATER_LOG", "loud")
    assert main(["check", "--schema"]) == 2
    assert "BREAKWATER_LOG=LOUD: must be DEBUG, INFO, WARNING or ERROR" in capsys.readouterr().err


def test_calibrate_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--model", "m", "--data", "x.npz"]) == 2
    assert "--config" in capsys.readouterr().err


async def test_the_package_is_the_command() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "--version"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.decode()) == (0, f"breakwater {__version__}\n")
