"""Real workers: one history between them, and what a killed one takes with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from tests.defended import settings_of
from tests.images import request
from tests.proxy.running import LIMIT_S, UNBOUNDED, Call, ask, recording, until
from tests.proxy.test_cli import INFER, Process, served
from tests.proxy.test_history_path import ALARMED_BY, MODEL, STRANGERS, binary_search
from tuning.triton import EmbeddedTriton

WORKERS = 2
REFUSED = grpc.StatusCode.UNAVAILABLE  # as if the model server were away: silent by default
ALONE = (*UNBOUNDED, ("grpc.use_local_subchannel_pool", 1))


class Workers:
    """A `breakwater serve --workers 2`, and a connection to each worker."""

    def __init__(self, process: Process, stack: AsyncExitStack) -> None:
        self.process = process
        self._stack = stack

    def pids(self) -> list[int]:
        """By index."""
        found = {int(self._word(pid, "--worker-index")): pid for pid in self._children()}
        return [found[index] for index in sorted(found)]

    def _children(self) -> list[int]:
        at = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in at.read_text().split()]

    def _word(self, pid: int, option: str) -> str:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return words[words.index(option) + 1]

    async def all_ready(self) -> bool:
        return f'"workers_ready": {WORKERS}' in (await self.process.get("/ready"))[1]

    def _connected(self) -> list[int]:
        """Clients' connections at each worker, by index."""
        port = int(self.process.address.rpartition(":")[2])
        tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        rows = [row.split() for row in tables.splitlines()]
        # proc_net_tcp: local address, remote address, state (01: established); the inode is tenth.
        ours = {f"socket:[{r[9]}]" for r in rows if r[1].endswith(f":{port:04X}") and r[3] == "01"}
        return [len(_open_at(pid) & ours) for pid in self.pids()]

    async def connections(self) -> list[grpc.aio.Channel]:
        """A connection to each worker, by index."""
        found: dict[int, grpc.aio.Channel] = {}
        while len(found) < WORKERS:
            before = self._connected()
            channel = grpc.aio.insecure_channel(self.process.address, options=ALONE)
            await self._stack.enter_async_context(channel)
            await asyncio.wait_for(channel.channel_ready(), LIMIT_S)
            after = self._connected()
            found[next(i for i in range(WORKERS) if after[i] > before[i])] = channel
        return [found[index] for index in range(WORKERS)]

    async def history(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((await self.process.get("/history"))[1])
        return answer


def _open_at(pid: int) -> set[str]:
    """What a process has open, as its links name it; what it closes meanwhile is left out."""
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(file))
    return found


@asynccontextmanager
async def workers(upstream: str, *arguments: str) -> AsyncIterator[Workers]:
    async with (
        served(upstream, "--workers", str(WORKERS), *arguments) as (process, _),
        AsyncExitStack() as stack,
    ):
        subject = Workers(process, stack)
        await until(subject.all_ready, limit_s=30)
        yield subject


def config_file(folder: Path, calibrations: Path, **settings: Any) -> Path:
    policy = {"fpr": 0.05, "action": "block"}
    models = settings_of(calibrations, {MODEL: {"query_attacks": policy, "fpr": 0.02}})
    path = folder / "breakwater.yaml"
    document = json.loads(json.dumps({"models": models, **settings}, default=str))
    path.write_text(yaml.safe_dump(document))
    return path


async def code(channel: grpc.aio.Channel, x: NDArray[np.float32]) -> grpc.StatusCode:
    sender = (("x-user", "eve"),)
    return (await ask(channel, "ModelInfer", request(MODEL, x[None]), metadata=sender)).code


@pytest.mark.triton
async def test_a_search_over_all_workers_is_one_series(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    path = config_file(tmp_path, calibrations, principal_header="x-user")
    async with workers(triton.grpc_address, "--config", str(path)) as subject:
        both = await subject.connections()
        codes = [await code(both[i % 2], x) for i, x in enumerate(binary_search())]
        first = codes.index(REFUSED)
        assert first < ALARMED_BY
        assert set(codes[first:]) == {REFUSED}  # at both, and in quarantine from then on
        history = await subject.history()
        assert history["remembered"] == len(codes)  # each once
        (standing,) = history["principals"]
        assert standing["longest_chain"] > 3

        path.write_text(path.read_text() + "max_in_flight: 77\n")
        assert (await subject.process.get("/reload", "POST"))[0] == 200
        assert await code(both[1], STRANGERS[0]) is REFUSED

        killed = subject.pids()[0]
        os.kill(killed, signal.SIGKILL)
        await subject.process.says("worker 0 ended with code -9")
        await until(subject.all_ready, limit_s=30)
        assert (await subject.history())["remembered"] == len(codes) + 1
        fresh = await subject.connections()
        assert killed not in subject.pids()
        assert [await code(each, STRANGERS[1]) for each in fresh] == [REFUSED, REFUSED]

        assert '"cleared": 1' in (await subject.process.get("/history/clear?all=1", "POST"))[1]
        for each, x in zip(fresh, STRANGERS[2:], strict=False):
            assert await code(each, x) is grpc.StatusCode.OK


async def test_a_killed_worker_takes_only_its_own_calls_with_it() -> None:
    async with recording() as (recorder, address), workers(address) as subject:
        both = await subject.connections()
        release = asyncio.Event()

        async def held(call: Call, _: grpc.aio.ServicerContext) -> bytes:
            await release.wait()
            return b""

        recorder.answers["ModelInfer"] = held
        calls = [asyncio.ensure_future(ask(each, "ModelInfer", INFER)) for each in both]
        await recorder.expect("ModelInfer", 2)
        os.kill(subject.pids()[0], signal.SIGKILL)
        assert (await calls[0]).code is grpc.StatusCode.UNAVAILABLE
        release.set()
        assert (await calls[1]).code is grpc.StatusCode.OK
        assert (await ask(both[0], "ModelInfer", INFER, wait_for_ready=True)).code is (
            grpc.StatusCode.OK
        )  # the same client, at whichever worker it finds now


async def test_an_old_connection_ends_after_its_calls(tmp_path: Path) -> None:
    path = tmp_path / "breakwater.yaml"
    path.write_text("max_connection_age_s: 0.5\n")
    async with (
        recording() as (recorder, address),
        served(address, "--config", str(path)) as (process, _),
    ):
        release = asyncio.Event()

        async def held(call: Call, _: grpc.aio.ServicerContext) -> bytes:
            await release.wait()
            return b""

        recorder.answers["ModelInfer"] = held
        async with grpc.aio.insecure_channel(process.address, options=ALONE) as channel:
            call = asyncio.ensure_future(ask(channel, "ModelInfer", INFER))
            await recorder.expect("ModelInfer")
            state = channel.get_state()
            while state is not grpc.ChannelConnectivity.IDLE:
                await asyncio.wait_for(channel.wait_for_state_change(state), 30)
                state = channel.get_state()
            release.set()
            assert (await call).code is grpc.StatusCode.OK
            assert (await ask(channel, "ModelInfer", INFER)).code is grpc.StatusCode.OK
