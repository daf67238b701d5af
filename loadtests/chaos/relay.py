"""A wire between the sidecar and its model server, or Redis, that misbehaves on command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

_CHUNK = 65_536
GARBAGE = bytes(range(256)) * 4


@dataclass(slots=True)
class Mood:
    """How the wire is just now; connections that are open follow it too."""

    delay_s: float = 0.0
    """Before each chunk, either way."""
    holds: bool = False
    """Nothing gets through, and no connection is closed: a partition."""
    refuses: bool = False
    """New connections are reset at once."""
    cuts_after: int | None = None
    """Reset a connection after so many bytes from the server."""
    babbles: bool = False
    """The server's side of each connection says bytes that are no protocol."""


class Relay:
    """Forwards TCP connections to a target; a context manager.

    Args:
        target: host and port of what is behind it.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.mood = Mood()
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._moved, self._closing = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        self._closing.set()
        self.set(Mood())
        self.reset()
        await asyncio.gather(*self._tasks)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def set(self, mood: Mood) -> None:
        """Behave like this from now on."""
        self.mood = mood
        self._moved.set()
        self._moved = asyncio.Event()

    def reset(self) -> None:
        """Reset every connection, as a router that forgot them would."""
        for writer in self._open:
            _reset(writer)

    def freeze(self) -> None:
        """Let nothing more through on the connections there are; they stay open."""
        self._frozen |= self._open

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.mood.refuses:
            _reset(writer)
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        self._open |= {writer, inner_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, inner_writer, from_server=False))
                group.create_task(self._pump(inner_reader, writer, from_server=True))
        except* OSError:
            pass
        finally:
            self._open -= {writer, inner_writer}
            self._frozen -= {writer, inner_writer}
            _reset(writer)
            _reset(inner_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        passed = 0
        while data := await reader.read(_CHUNK):
            while self.mood.holds:
                await self._moved.wait()
            if writer in self._frozen:
                await self._closing.wait()
                return
            if self.mood.delay_s:
                await asyncio.sleep(self.mood.delay_s)
            if from_server and self.mood.babbles:
                data = GARBAGE
            limit = self.mood.cuts_after
            passed += len(data)
            if from_server and limit is not None and passed > limit:
                writer.write(data[: len(data) // 2])
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST instead of a FIN."""
    with contextlib.suppress(OSError):
        sock = writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
