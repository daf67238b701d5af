"""Clients by hand that are slow, or take nothing, and a model server whose answers are large."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

from tests.bypass.http2 import (
    CALL,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEADERS,
    PREFACE,
    RESET,
    SETTINGS,
    WINDOW,
    Connection,
    connected,
    frame,
    message,
    packed,
)

_INITIAL_WINDOW = 4
_EVER = 2**31 - 1


@contextlib.asynccontextmanager
async def opened(address: str, *, window: int = 65_535) -> AsyncIterator[Connection]:
    """An HTTP/2 connection; `window` is how much of each answer the client would take."""
    async with connected(address) as (reader, writer):
        settings = struct.pack(">HI", _INITIAL_WINDOW, window)
        more = frame(WINDOW, body=struct.pack(">I", 2**30))
        writer.write(PREFACE + frame(SETTINGS, body=settings) + more)
        yield reader, writer


def call(stream: int, body: bytes, *, size: int | None = None) -> bytes:
    """A call with its message; one that says it is longer than it is stays unfinished."""
    data = message(body, size=size)
    parts = [data[start : start + FRAME] for start in range(0, len(data), FRAME)]
    frames = [frame(DATA, 0, stream, part) for part in parts]
    if size is None:
        frames.append(frame(DATA, END_STREAM, stream))
    return frame(HEADERS, END_HEADERS, stream, packed(CALL)) + b"".join(frames)


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, int, int, bytes]]:
    """What the server sends: kind, flags, stream, body."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[:3]))
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            yield kind, flags, stream & _EVER, body


async def ended(reader: asyncio.StreamReader) -> AsyncIterator[int]:
    """The streams that the server ends, each once: a status may be followed by a reset."""
    known: set[int] = set()
    async for kind, flags, stream, _ in frames(reader):
        ends = kind == RESET or (kind in (DATA, HEADERS) and flags & END_STREAM)
        if ends and stream not in known:
            known.add(stream)
            yield stream
