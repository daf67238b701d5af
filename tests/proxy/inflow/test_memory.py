"""Where memory gets short, slow clients go first and others are refused while it lasts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from loadtests.http2 import call, ended, opened
from proxy.inflow.memory import MemoryGuard, available_bytes, resident_bytes
from proxy.inflow.untaken import Untaken
from proxy.inflow.waiting import Waiting
from tests.builders import infer_request
from tests.images import CLEAN
from tests.proxy.running import LIMIT_S, Recorder, ask, running


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("memory.max", "1048576\n", 1 << 20),
        ("memory/memory.limit_in_bytes", "2097152\n", 2 << 20),
        ("memory.max", "max\n", None),
    ],
)
def test_a_containers_limit_counts(name: str, text: str, found: int | None, tmp_path: Path) -> None:
    machine = available_bytes(tmp_path)
    file = tmp_path / "sys/fs/cgroup" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert available_bytes(tmp_path) == (found or machine)


def test_a_process_with_room_is_left_alone() -> None:
    guard = MemoryGuard(1 << 50, Waiting(1), Untaken(1, lambda _: False))
    guard.look()
    assert not guard.is_short
    assert 1 << 20 < resident_bytes() < 1 << 50


async def test_slow_clients_give_way_where_memory_is_short(
    recorder: tuple[Recorder, str],
) -> None:
    """One MiB is less than any process has: all is short, and a lone request is still taken."""
    release, arrived = asyncio.Event(), recorder[0].arrived

    async def hold(_: object, context: grpc.aio.ServicerContext) -> bytes:
        await release.wait()
        return b""

    recorder[0].answers["ModelInfer"] = hold
    good = infer_request({"image": CLEAN}, model="m")
    async with (
        running(recorder[1], inflow={"max_memory_mb": 1}) as server,
        opened(server.address) as (reader, to),
    ):
        to.write(b"".join(call(stream, b"x", size=99) for stream in range(1, 20, 2)))
        async with asyncio.timeout(LIMIT_S):
            given_way = ended(reader)
            assert len({await anext(given_way) for _ in range(10)}) == 10
        first = asyncio.ensure_future(ask(server.channel, "ModelInfer", good))
        async with asyncio.timeout(LIMIT_S), arrived:
            await arrived.wait_for(lambda: any(c.method == "ModelInfer" for c in recorder[0].calls))
        refused = await ask(server.channel, "ModelInfer", good)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details == "too little memory"
        release.set()
        assert (await first).code is grpc.StatusCode.OK
