"""What can happen to the model server, and to the way there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator
from functools import partial

from loadtests.chaos.fault import AWAY, Fault
from loadtests.chaos.ledger import UNREADABLE
from loadtests.chaos.liar import LIES
from loadtests.chaos.meanwhile import again_and_again
from loadtests.chaos.relay import Mood
from loadtests.chaos.scene import HOST, Scene


@contextlib.asynccontextmanager
async def _killed(scene: Scene) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.triton.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(scene.triton.start)


@contextlib.asynccontextmanager
async def _restarted(scene: Scene) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.triton.restart)
    yield


@contextlib.asynccontextmanager
async def _hung(scene: Scene) -> AsyncIterator[None]:
    os.kill(scene.triton.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(scene.triton.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def _bursts(scene: Scene) -> AsyncIterator[None]:
    """Stopped and let go ten times a second."""
    pid = scene.triton.pid
    stop, go = partial(os.kill, pid, signal.SIGSTOP), partial(os.kill, pid, signal.SIGCONT)
    try:
        async with again_and_again((stop, 0.07), (go, 0.03)):
            yield
    finally:
        go()


@contextlib.asynccontextmanager
async def _wire(scene: Scene, *, mood: Mood) -> AsyncIterator[None]:
    scene.wire.set(mood)
    try:
        yield
    finally:
        scene.wire.set(Mood())


@contextlib.asynccontextmanager
async def _cut(scene: Scene, *, mood: Mood) -> AsyncIterator[None]:
    """A wire that cuts or babbles, and a server behind it that bears that."""
    async with _lying(scene, lie=""):
        scene.wire.set(mood)
        try:
            yield
        finally:
            scene.wire.set(Mood())


@contextlib.asynccontextmanager
async def _forgotten(scene: Scene) -> AsyncIterator[None]:
    """Connections are dead without a word, and stay so; new ones work."""
    scene.wire.freeze()
    yield


@contextlib.asynccontextmanager
async def _resets(scene: Scene) -> AsyncIterator[None]:
    """Every connection to the model server is reset twenty times a second."""
    async with _lying(scene, lie=""), again_and_again((scene.wire.reset, 0.05)):
        yield


@contextlib.asynccontextmanager
async def _client_resets(scene: Scene) -> AsyncIterator[None]:
    """Strangers open connections to the front, say half a greeting, and reset them."""
    host, _, port = scene.settings["listen"].rpartition(":")

    def one() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1) as each:
            each.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[:12])
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def storm() -> None:
        for _ in range(1500):
            one()

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(storm))
        yield


@contextlib.asynccontextmanager
async def _lying(scene: Scene, *, lie: str) -> AsyncIterator[None]:
    truth, scene.liar.lie = scene.wire.target, lie
    scene.wire.target = ("127.0.0.1", scene.liar.port)
    scene.wire.reset()
    try:
        yield
    finally:
        scene.liar.lie, scene.wire.target = "", truth
        scene.wire.reset()


@contextlib.asynccontextmanager
async def _unnamed(scene: Scene) -> AsyncIterator[None]:
    """The name stands for nothing, and the connections are lost."""
    scene.name("another.chaos.test")
    scene.wire.set(Mood(refuses=True))
    scene.wire.reset()
    try:
        yield
    finally:
        scene.name(HOST)
        scene.wire.set(Mood())


def faults(scene: Scene) -> list[Fault]:
    """All of them; those that this machine allows."""
    gone = "UNAVAILABLE or the client's deadline at once, /ready 503; back within seconds"
    found = [
        Fault("Triton killed", gone, _killed, AWAY, unready=True, suspends=True),
        Fault(
            "Triton restarted",
            "Triton's own statuses while it goes, then as if it were killed",
            *(_restarted, AWAY | {"NOT_FOUND"}),
            suspends=True,
            lasts_s=0.5,
        ),
        Fault(
            "Triton hung (SIGSTOP)",
            "requests end at their deadline or upstream_timeout_s, /ready 503",
            *(_hung, AWAY),
            unready=True,
            suspends=True,
            lasts_s=7.0,
        ),
        Fault("Triton slow (SIGSTOP bursts)", "slower answers, the right ones", _bursts, AWAY,
              suspends=True),
        Fault("wire slow", "slower answers, the right ones",
              partial(_wire, mood=Mood(delay_s=0.05)), AWAY, suspends=True),
        Fault("wire partitioned", "requests end at their deadline; connected again afterwards",
              partial(_wire, mood=Mood(holds=True)), AWAY, unready=True, suspends=True, lasts_s=7),
        Fault("connections forgotten (no RST)",
              "found out by the health loop: a new connection within 10 s", _forgotten, AWAY,
              suspends=True, lasts_s=0.5, unready=None),
        Fault("connections cut mid-message", "UNAVAILABLE for what was cut; nothing half-read",
              partial(_cut, mood=Mood(cuts_after=3000)), AWAY, suspends=True),
        Fault("RST storm to Triton", "UNAVAILABLE for what was under way", _resets, AWAY,
              suspends=True),
        Fault("RST storm from clients", "nothing: other clients see no difference", _client_resets,
              unready=False),
        Fault("garbage instead of HTTP/2", "UNAVAILABLE, /ready 503",
              partial(_cut, mood=Mood(babbles=True)), AWAY, suspends=True),
    ]  # fmt: skip
    if scene.namespaced:
        found.append(
            Fault("upstream's name does not resolve", "UNAVAILABLE, /ready 503; back within 15 s",
                  _unnamed, AWAY, unready=True, suspends=True, lasts_s=8.0)
        )  # fmt: skip
    return [*found, *_lies()]


def _lies() -> list[Fault]:
    told = {
        "swapped": ("the answer to another request is refused (INTERNAL), never passed on",
                    frozenset({"INTERNAL"})),
        "too large": ("RESOURCE_EXHAUSTED, bounded memory", frozenset({"RESOURCE_EXHAUSTED"})),
        "late": ("DEADLINE_EXCEEDED; the late answer reaches nobody", frozenset()),
        "status": ("the upstream's status, text made safe", frozenset({"DATA_LOSS"})),
        "metadata": ("metadata in our name is taken off", frozenset()),
    }  # fmt: skip
    usual = ("passed on as it is or refused, no evidence in it: on_failure decides",
             frozenset({UNREADABLE}))  # fmt: skip
    found = []
    for lie in [*LIES, "late", "status", "metadata"]:
        promised, tolerated = told.get(lie, usual)
        found.append(
            Fault(f"upstream lies: {lie}", promised, partial(_lying, lie=lie), AWAY | tolerated,
                  suspends=True, lasts_s=5.0 if lie == "late" else 2.0)
        )  # fmt: skip
    return found
