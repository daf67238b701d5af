"""`breakwater history` against a real admin port, and against what is none."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from proxy import inquiry
from proxy.admin import Admin, Status
from proxy.cli import main
from proxy.control.access import Access
from proxy.history.quarantine import Quarantine

NASTY = "a&all=1\\ \x1b[2J"


class Remembering:
    """A proxy with a quarantine; stops to answer after so many questions, if told so."""

    def __init__(self) -> None:
        self.quarantine = Quarantine(wall=time.time)
        self.admin = Admin(self)
        self.address = ""
        self.answers_left = 1000
        self.shown = asyncio.Event()

    async def status(self) -> Status:
        return Status(ready=True, draining=False, in_flight=0)

    async def drain(self, mode: str = "exit") -> None: ...

    async def reload(self) -> bool:
        return False

    async def config(self) -> Mapping[str, Any]:
        return {}

    async def metrics(self) -> tuple[str, bytes]:
        return "text/plain", b""

    async def history(self) -> Mapping[str, Any]:
        self.shown.set()
        self.answers_left -= 1
        if self.answers_left < 0:
            raise RuntimeError("a defect")
        standings = [asdict(standing) for standing in self.quarantine.standings()]
        return {"remembered": 42, "shared": None, "principals": standings}

    async def forget(self, principal: str | None, model: str | None) -> int:
        return self.quarantine.clear(principal, model)

    async def run(self, *arguments: str) -> int:
        """The command's exit status."""
        return await asyncio.to_thread(main, ["history", "--admin", self.address, *arguments])

    def known(self) -> set[tuple[str, str]]:
        return {(s.model, s.principal) for s in self.quarantine.standings()}


@pytest.fixture
async def proxy() -> AsyncIterator[Remembering]:
    target = Remembering()
    for model in ("cnn", "vit"):
        for principal in ("eve", NASTY):
            target.quarantine.alarm(model, principal, half_life_s=600.0, chain=7)
    target.address = await target.admin.start("127.0.0.1:0")
    yield target
    await target.admin.stop()


async def test_a_table(proxy: Remembering, capsys: pytest.CaptureFixture[str]) -> None:
    assert await proxy.run() == 0
    out = capsys.readouterr().out
    assert out.count("eve") == 2
    assert out.count("\\x1b[2J") == 2
    assert "10 min" in out
    assert re.search(r"\d+ s ago", out)
    assert "42 queries remembered" in out
    assert "\x1b" not in out


async def test_one_model(proxy: Remembering, capsys: pytest.CaptureFixture[str]) -> None:
    assert await proxy.run("--model", "vit") == 0
    out = capsys.readouterr().out
    assert "vit" in out
    assert "cnn" not in out


async def test_json(proxy: Remembering, capsys: pytest.CaptureFixture[str]) -> None:
    assert await proxy.run("--json", "--model", "cnn") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["remembered"] == 42
    assert {(p["model"], p["principal"]) for p in answer["principals"]} == {
        ("cnn", "eve"),
        ("cnn", NASTY),
    }
    assert await proxy.run("--json", "--clear", "eve") == 0
    assert json.loads(capsys.readouterr().out) == {"cleared": 2}


@pytest.mark.parametrize(
    ("arguments", "left", "text"),
    [
        (["--clear", "eve"], {("cnn", NASTY), ("vit", NASTY)}, "of “eve”: 2 entries"),
        (
            ["--clear", "eve", "--model", "cnn"],
            {("cnn", NASTY), ("vit", NASTY), ("vit", "eve")},
            "of “eve” at the model “cnn”: 1 entry",
        ),
        (
            ["--clear", "a&all=1\\\\ \\x1b[2J"],  # as it is printed
            {("cnn", "eve"), ("vit", "eve")},
            "of “a&all=1\\\\ \\x1b[2J”: 2 entries",
        ),
        (["--clear", NASTY], {("cnn", "eve"), ("vit", "eve")}, "2 entries"),  # as it is
        (["--clear-all", "--model", "vit"], {("cnn", "eve"), ("cnn", NASTY)}, "anybody at the"),
        (["--clear-all"], set(), "of anybody: 4 entries"),
    ],
)
async def test_clear(
    proxy: Remembering,
    arguments: list[str],
    left: set[tuple[str, str]],
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await proxy.run(*arguments) == 0
    assert proxy.known() == left
    assert text in " ".join(capsys.readouterr().out.split("\n"))


async def test_clearing_nobody_is_no_failure(
    proxy: Remembering, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await proxy.run("--clear", "bob") == 0
    assert "Nothing was held against “bob”." in capsys.readouterr().out
    assert len(proxy.known()) == 4


@pytest.mark.parametrize("arguments", [("--watch", "0.001"), ("--watch", "0.001", "--json")])
async def test_watch_goes_on_until_there_is_no_answer(
    proxy: Remembering, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.answers_left = 3
    assert await proxy.run(*arguments) == 1
    out, err = capsys.readouterr()
    if "--json" in arguments:
        assert [json.loads(line)["remembered"] for line in out.splitlines()] == [42, 42, 42]
    else:
        assert out.count("42 queries remembered") == 3
    assert f"{proxy.address} answered 500 Internal Server Error" in err


async def test_watch_redraws_a_terminal(proxy: Remembering) -> None:
    proxy.answers_left = 3
    for number in range(100):
        proxy.quarantine.alarm("cnn", f"sybil {number}", half_life_s=600.0)
    host, _, port = proxy.address.rpartition(":")
    console = Console(force_terminal=True, width=120, height=30, record=True)
    status = await asyncio.to_thread(
        inquiry.show, inquiry.Address(host, int(port)), every_s=0.001, console=console
    )
    assert status == 1
    text = console.export_text()
    assert "... and 82 more; --json lists all" in text
    assert "42 queries remembered" in text


# Jobs in the background, of a CI say, begin with SIGINT ignored, and so do their children.
AT_A_TERMINAL = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from proxy.cli import main; sys.exit(main(sys.argv[1:]))"
)


async def test_ctrl_c_ends_a_watch_well(proxy: Remembering) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AT_A_TERMINAL),
        *("history", "--admin", proxy.address, "--watch", "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["remembered"] == 42
    process.send_signal(2)
    assert await asyncio.wait_for(process.wait(), 30) == 0


# -- no answer -------------------------------------------------------------------------------------


async def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for arguments in ([], ["--clear-all"], ["--watch"], ["--json"]):
            assert main(["history", "--admin", address, *arguments]) == 1
            out, err = capsys.readouterr()
            assert out == ""
            assert err.startswith(f"breakwater: no answer from {address}: Connection refused")
            assert "--admin" in err


async def test_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inquiry, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert main(["history", "--admin", address]) == 1
    assert f"no answer from {address}: timed out" in capsys.readouterr().err


async def test_a_defect_is_not_shown_as_one_of_ours(
    proxy: Remembering, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.answers_left = 0
    assert await proxy.run() == 1
    assert "answered 500" in capsys.readouterr().err


@pytest.mark.parametrize(
    "body",
    [
        *("<html>", "[]", "{}", '"remembered"', '{"remembered": 1, "shared": null}'),
        '{"remembered": 1, "shared": null, "principals": [{"model": "m"}]}',
        '{"remembered": 1, "shared": null, "principals": [7]}',
        '{"remembered": 1, "shared": null, "principals": 7}',
    ],
)
@pytest.mark.parametrize("status", [200, 404])
async def test_another_program(body: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    app = web.Application()
    app.add_routes([web.route("*", "/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    for arguments in ([], ["--clear", "eve"]):
        assert await asyncio.to_thread(main, ["history", "--admin", address, *arguments]) == 1
        err = capsys.readouterr().err
        assert f"breakwater: {address} is not the admin port of a Breakwater" in err
        assert "Traceback" not in err
    await runner.cleanup()


async def test_a_port_without_http(capsys: pytest.CaptureFixture[str]) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await asyncio.to_thread(main, ["history", "--admin", address]) == 1
    assert "it speaks no HTTP" in capsys.readouterr().err


async def test_a_refusal_by_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    target = Remembering()
    target.admin = Admin(target, access=Access(loopback=False))
    port = (await target.admin.start("127.0.0.1:0")).rpartition(":")[2]
    target.address = f"127.1:{port}"  # reaches us, and is no name that we answer to
    assert await target.run() == 1
    assert "set control.token_file" in capsys.readouterr().err
    await target.admin.stop()
