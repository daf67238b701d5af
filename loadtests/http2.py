"""HTTP/2 by hand, for what no gRPC client would send (RFC 9113, RFC 7541 without Huffman codes).

Also clients that are slow, or take nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Sequence

from proxy import rpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACKNOWLEDGED = 1, 4, 1
FRAME = 16_384
_MAX_STREAMS, _INITIAL_WINDOW = 3, 4
"""Settings (RFC 9113, section 6.5.2)."""
_EVER = 2**31 - 1
CALL = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", rpc.INFER.path),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
"""The headers of an ordinary inference."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Headers = Sequence[tuple[str | bytes, str | bytes]]


def frame(kind: int, flags: int = 0, stream: int = 0, body: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def packed(headers: Headers) -> bytes:
    """Header fields, each literal and never indexed."""
    return b"".join(b"\x10" + _string(name) + _string(value) for name, value in headers)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    size = len(data)
    if size < 127:
        return bytes([size]) + data
    size, prefix = size - 127, b"\x7f"
    while size >= 128:
        prefix += bytes([size % 128 + 128])
        size //= 128
    return prefix + bytes([size]) + data


def message(data: bytes, *, flag: int = 0, size: int | None = None) -> bytes:
    """A gRPC message with its prefix."""
    return struct.pack(">BI", flag, len(data) if size is None else size) + data


@contextlib.asynccontextmanager
async def connected(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A plain TCP connection."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(address: str, headers: Headers, body: bytes, *, limit_s: float = 10) -> bytes:
    """Send one request; return the data frames of its answer, for as long as there are any."""
    found = b""
    async with connected(address) as (reader, writer):
        parts = [PREFACE, frame(SETTINGS), frame(HEADERS, END_HEADERS, 1, packed(headers))]
        parts += [frame(DATA, 0, 1, body[i : i + FRAME]) for i in range(0, len(body), FRAME)]
        writer.write(b"".join(parts) + frame(DATA, END_STREAM, 1))
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    head = await reader.readexactly(9)
                    content = await reader.readexactly(int.from_bytes(head[:3]))
                    kind, flags, stream = struct.unpack(">BBI", head[3:])
                    found += content if kind == DATA else b""
                    if kind == GOAWAY or (stream and (kind == RESET or flags & END_STREAM)):
                        return found
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return found


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


class Windows:
    """How much the server takes, so that nothing more is sent (RFC 9113, section 5.2).

    Args:
        connection: whose; every frame that comes on it is to be shown to `note`.
    """

    def __init__(self, connection: Connection) -> None:
        _, self._to = connection
        self.most_streams = 1 << 30
        self._whole = self._initial = 65_535
        self._streams: dict[int, int] = {}
        self._more = asyncio.Event()

    def note(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        """Keep what a frame says of windows, and acknowledge what is to be."""
        if kind == WINDOW:
            more = int.from_bytes(body)
            if stream:
                self._streams[stream] = self._streams.get(stream, self._initial) + more
            else:
                self._whole += more
        elif kind == SETTINGS and not flags & ACKNOWLEDGED:
            said = dict(struct.iter_unpack(">HI", body))
            self.most_streams = said.get(_MAX_STREAMS, self.most_streams)
            self._resize(said.get(_INITIAL_WINDOW, self._initial))
            self._to.write(frame(SETTINGS, ACKNOWLEDGED))
        elif kind == PING and not flags & ACKNOWLEDGED:
            self._to.write(frame(PING, ACKNOWLEDGED, 0, body))
        self._more.set()

    def take(self, stream: int, size: int) -> bool:
        """Count bytes that are about to be sent; False: there is no room for them."""
        room = self._streams.get(stream, self._initial)
        if size > min(room, self._whole):
            return False
        self._streams[stream] = room - size
        self._whole -= size
        return True

    def forget(self, stream: int) -> None:
        """A stream has ended."""
        self._streams.pop(stream, None)

    async def send(self, stream: int, data: bytes) -> None:
        """Send data as the server makes room for it."""
        for start in range(0, len(data), FRAME):
            part = data[start : start + FRAME]
            while not self.take(stream, len(part)):
                self._more.clear()
                await self._more.wait()
            self._to.write(frame(DATA, 0, stream, part))
            await self._to.drain()

    def _resize(self, initial: int) -> None:
        for stream in self._streams:
            self._streams[stream] += initial - self._initial
        self._initial = initial


async def ended(reader: asyncio.StreamReader) -> AsyncIterator[int]:
    """The streams that the server ends, each once: a status may be followed by a reset."""
    known: set[int] = set()
    async for kind, flags, stream, _ in frames(reader):
        ends = kind == RESET or (kind in (DATA, HEADERS) and flags & END_STREAM)
        if ends and stream not in known:
            known.add(stream)
            yield stream
