"""What can happen to the Redis that replicas share their history in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from loadtests.chaos.fault import Fault
from loadtests.chaos.meanwhile import again_and_again
from loadtests.chaos.relay import Mood
from loadtests.chaos.scene import Scene

_GOES_ON = "requests go on with the local history: no error, no verdict missing"


@contextlib.asynccontextmanager
async def _killed(scene: Scene) -> AsyncIterator[None]:
    scene.redis.kill()
    try:
        yield
    finally:
        await asyncio.to_thread(scene.redis.start)


@contextlib.asynccontextmanager
async def _frozen(scene: Scene) -> AsyncIterator[None]:
    scene.redis.freeze()
    try:
        yield
    finally:
        scene.redis.thaw()


@contextlib.asynccontextmanager
async def _bursts(scene: Scene) -> AsyncIterator[None]:
    try:
        async with again_and_again((scene.redis.freeze, 0.02), (scene.redis.thaw, 0.02)):
            yield
    finally:
        scene.redis.thaw()


@contextlib.asynccontextmanager
async def _wire(scene: Scene, *, mood: Mood, reset: bool = False) -> AsyncIterator[None]:
    scene.memory_wire.set(mood)
    if reset:
        scene.memory_wire.reset()
    try:
        yield
    finally:
        scene.memory_wire.set(Mood())


@contextlib.asynccontextmanager
async def _told(
    scene: Scene, *, commands: tuple[str, ...], undo: tuple[str, ...] = (), reset: bool = False
) -> AsyncIterator[None]:
    """Commands to Redis itself, inline, and those that undo them."""
    await _say(scene, commands)
    if reset:
        scene.memory_wire.reset()
    try:
        yield
    finally:
        if undo:
            await _say(scene, undo)


async def _say(scene: Scene, commands: tuple[str, ...]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.redis.port)
    for command in commands:
        writer.write(command.encode() + b"\r\n")
        answer = await reader.readline()
        if answer.startswith(b"-"):
            raise RuntimeError(f"redis: {command}: {answer.decode()}")
    writer.close()


def faults() -> list[Fault]:
    """All of them."""
    closed = ("CONFIG SET requirepass chaos",)
    opened = ("AUTH chaos", "CONFIG SET requirepass ''")
    full = ("CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1mb")
    given = [
        ("Redis killed", _killed),
        ("Redis hung (SIGSTOP)", _frozen),
        ("Redis slow (SIGSTOP bursts)", _bursts),
        ("Redis slow (wire)", partial(_wire, mood=Mood(delay_s=0.1))),
        ("Redis partitioned", partial(_wire, mood=Mood(holds=True))),
        ("Redis answers garbage", partial(_wire, mood=Mood(babbles=True))),
        ("Redis cuts replies", partial(_wire, mood=Mood(cuts_after=100), reset=True)),
        ("Redis full (OOM)", partial(_told, commands=full, undo=("CONFIG SET maxmemory 0",))),
        ("Redis flushed", partial(_told, commands=("FLUSHALL",))),
        ("Redis wants a password", partial(_told, commands=closed, undo=opened, reset=True)),
    ]
    return [Fault(name, _GOES_ON, do, unready=False, lasts_s=2.5) for name, do in given]
