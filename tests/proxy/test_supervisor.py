"""Workers as real processes: sum, replacement, drain, and what happens when they misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import proxy.supervisor
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.supervisor import EXIT_CONFIG, LOOK_S, Supervisor, supervise

COMMAND = (sys.executable, "-m", "tests.proxy.stand_in_worker")
Event = tuple[str, int, int]


class Scene:
    """A supervisor in this process, its workers, and what they report."""

    def __init__(self, folder: Path) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.socket = str(folder / "events.sock")
        self.addresses: asyncio.Future[tuple[str, str]] = asyncio.Future()
        self.done: asyncio.Future[int] = asyncio.Future()

    async def listen(self) -> asyncio.Server:
        async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async for text in reader:
                event, index, pid = text.decode().split()
                self.events.put_nowait((event, int(index), int(pid)))
            writer.close()

        return await asyncio.start_unix_server(receive, self.socket)

    def start(
        self, *options: str, workers: int = 2, look_s: float = LOOK_S, **config: object
    ) -> None:
        settings = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"} | config
        self.done = asyncio.ensure_future(
            supervise(
                ["--events", self.socket, *options],
                Config.model_validate(settings),
                workers,
                announce=lambda *both: self.addresses.set_result(both),
                command=COMMAND,
                backoff_s=0.001,
                look_s=look_s,
            )
        )

    async def expect(self, event: str, workers: int) -> list[int]:
        """Wait for an event from so many different workers; return their process ids by index."""
        seen: dict[int, int] = {}
        while len(seen) < workers:
            name, index, pid = await self.events.get()
            if name == event:
                seen[index] = pid
        return [seen[index] for index in sorted(seen)]

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        _, admin = await self.addresses
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://{admin}{path}") as response,
        ):
            return response.status, await response.text()

    async def say(self, word: str) -> bytes:
        """Talk to whichever worker the kernel picks; empty when it died of it."""
        listen, _ = await self.addresses
        host, _, port = listen.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{word}\n".encode())
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    server = await scene.listen()
    yield scene
    if not scene.done.done():
        scene.done.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scene.done
    server.close()


async def test_workers_share_the_port_and_show_as_one(scene: Scene) -> None:
    scene.start()
    pids = await scene.expect("up", 2)
    assert int(await scene.say("who")) in pids
    status, body = await scene.get("/ready")
    assert status == 200
    assert '"workers_ready": 2' in body
    assert '"in_flight": 4' in body
    _, metrics = await scene.get("/metrics")
    lines = metrics.splitlines()
    assert 'breakwater_requests_total{action="none",model="cnn",outcome="ok"} 2.0' in lines
    assert "breakwater_in_flight 4.0" in lines
    assert "breakwater_workers 2.0" in lines
    assert "a worker" in (await scene.get("/config"))[1]
    assert await scene.get("/reload", "POST") == (200, '{\n  "reloaded": true\n}\n')
    await scene.expect("reload", 2)
    status, body = await scene.get("/drain", "POST")
    assert status == 202
    assert '"draining": true' in body
    await scene.expect("drained", 2)
    assert await scene.done == 0


async def test_the_workers_histories_are_one(scene: Scene) -> None:
    scene.start()
    await scene.expect("up", 2)
    history = json.loads((await scene.get("/history"))[1])
    assert (history["remembered"], history["shared"]) == (3, {"state": "up"})
    (eve,) = history["principals"]
    assert (eve["principal"], eve["alarms"], eve["longest_chain"]) == ("eve", 1, 5)
    assert eve["penalty"] == pytest.approx(1, abs=0.1)
    nobody = "/history/clear?principal=e%2Bve%26all%3D1+%1B&model=cnn"
    assert await scene.get(nobody, "POST") == (200, '{\n  "cleared": 0\n}\n')
    assert "eve" in (await scene.get("/history"))[1]
    clear = "/history/clear?principal=eve&model=cnn"
    assert await scene.get(clear, "POST") == (200, '{\n  "cleared": 2\n}\n')
    await scene.expect("forget", 2)
    assert json.loads((await scene.get("/history"))[1])["principals"] == []
    assert await scene.get("/history/clear?all=1", "POST") == (200, '{\n  "cleared": 0\n}\n')


async def test_a_worker_that_is_not_there_cannot_forget(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics").mkdir()
    supervisor = Supervisor(COMMAND, Config(), 2, tmp_path, 0.001)  # which has not run yet
    assert await supervisor.history() == {"remembered": 0, "shared": None, "principals": []}
    assert await supervisor.forget("eve", None) == 0
    assert "0 of 2 workers lifted quarantines" in caplog.text


async def test_a_dead_worker_is_replaced_and_its_counts_kept(scene: Scene) -> None:
    scene.start()
    pids = await scene.expect("up", 2)
    assert await scene.say("die") == b""
    (fresh,) = await scene.expect("up", 1)
    assert fresh not in pids
    lines = (await scene.get("/metrics"))[1].splitlines()
    assert 'breakwater_requests_total{action="none",model="cnn",outcome="ok"} 3.0' in lines
    assert "breakwater_in_flight 4.0" in lines
    assert "breakwater_worker_restarts_total 1.0" in lines
    assert '"workers_ready": 2' in (await scene.get("/ready"))[1]


async def test_signals_reach_the_workers(scene: Scene) -> None:
    scene.start()
    await scene.expect("up", 2)
    os.kill(os.getpid(), signal.SIGHUP)
    await scene.expect("hangup", 2)
    os.kill(os.getpid(), signal.SIGTERM)
    await scene.expect("drained", 2)
    assert await scene.done == 0


async def test_a_worker_that_will_not_drain_is_killed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy.supervisor, "GRACE_S", 0.05)
    scene.start("--hang", drain_seconds=0, drain_delay_seconds=0)
    await scene.expect("up", 2)
    os.kill(os.getpid(), signal.SIGINT)
    await scene.expect("ignored", 2)
    assert await scene.done == 1


async def test_a_worker_that_fails_to_drain_shows_in_the_exit_code(scene: Scene) -> None:
    scene.start("--exit-code", "1", workers=1)
    await scene.expect("up", 1)
    await scene.get("/drain", "POST")
    assert await scene.done == 1


async def test_a_refused_configuration_ends_it_all(scene: Scene) -> None:
    scene.start("--refuse")
    assert await scene.done == EXIT_CONFIG


async def test_not_ready_and_own_config_before_a_worker_answers(scene: Scene) -> None:
    scene.start(workers=1, max_in_flight=77)
    status, body = await scene.get("/ready")
    assert status == 503
    assert '"workers_ready": 0' in body
    assert '"max_in_flight": 77' in (await scene.get("/config"))[1]
    await scene.expect("up", 1)


async def test_workers_notice_that_the_supervisor_is_gone(scene: Scene) -> None:
    program = """
        import asyncio, sys
        from proxy.config import Config
        from proxy.supervisor import supervise
        config = Config(listen="127.0.0.1:0", admin="127.0.0.1:0")
        asyncio.run(supervise(sys.argv[3:], config, 2, announce=print,
                              command=[sys.executable, "-m", sys.argv[2]]))
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(program), "-m", COMMAND[2]),
        *("--events", scene.socket),
        stdout=asyncio.subprocess.DEVNULL,
    )
    await scene.expect("up", 2)
    child.kill()
    await child.wait()
    await scene.expect("drained", 2)


@pytest.mark.parametrize("field", ["listen", "admin"])
async def test_a_taken_address_is_a_clear_error(scene: Scene, field: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings: dict[str, Any] = {field: f"127.0.0.1:{taken.getsockname()[1]}"}
        scene.start(**settings)
        with pytest.raises(ConfigError, match=f"{field} address 127.0.0.1:.* in use"):
            await scene.done


async def test_a_worker_that_hangs_is_replaced(scene: Scene) -> None:
    """The kernel would go on giving it connections that nobody serves."""
    scene.start(look_s=0.05)
    pids = await scene.expect("up", 2)
    os.kill(pids[0], signal.SIGSTOP)
    (fresh,) = await scene.expect("up", 1)
    assert fresh not in pids
    assert "breakwater_worker_restarts_total 1.0" in (await scene.get("/metrics"))[1]
    os.kill(pids[1], 0)  # the other one is left alone


async def test_a_worker_that_is_only_starting_is_not_sent_a_reload(tmp_path: Path) -> None:
    """SIGHUP ends a process that has not yet said what it means."""
    (tmp_path / "metrics").mkdir()
    sleeper = ("sh", "-c", f"trap 'touch {tmp_path}/heard' HUP; touch {tmp_path}/up; read line")
    supervisor = Supervisor(sleeper, Config(), 1, tmp_path, 0.001)
    running = asyncio.ensure_future(supervisor.run())
    await until((tmp_path / "up").exists)
    supervisor.hang_up()
    supervisor.interrupt()
    await running
    assert not (tmp_path / "heard").exists()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
