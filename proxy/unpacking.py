"""Compressed messages, unpacked here within bounds instead of by gRPC, which knows none.

gRPC unpacks a message whole before it looks at its size: a hundred kilobytes could cost a hundred
megabytes, and an honest megabyte less than one. The server is told to leave messages as they came
(`channel_options`), and what begins like gzip or zlib is unpacked in pieces, up to the limit on a
message and to one on all of them together. No ambiguity comes of it: what is unpacked is what is
inspected and what is sent on. No protobuf message of the protocol begins with these bytes.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc

from proxy.errors import InvalidRequest, Overloaded

_UNTOUCHED = ("grpc.per_message_decompression", 0)
_IDENTITY_ONLY = ("grpc.compression_enabled_algorithms_bitset", 1)
"""gRPC then answers compressed requests with UNIMPLEMENTED, before it reads them."""

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_HEADS = frozenset({b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"})
"""What gzip begins with (RFC 1952), and zlib with a window of 32 KiB (RFC 1950)."""
_AT_ONCE = 1 << 16
"""Bytes unpacked on the event loop; more goes to a thread."""
_PIECE = 1 << 20
_MOST_WAITING = 64
"""Messages being unpacked, or waiting for that, at a time; one more is refused at once."""
_SMALL = 1 << 16
"""Most bytes of an unpacked message to the health and reflection services."""


def channel_options(*, accepts: bool) -> tuple[tuple[str, int], ...]:
    """What a server needs to be told so that gRPC unpacks nothing.

    Args:
        accepts: whether compressed requests are taken at all.
    """
    return (_UNTOUCHED,) if accepts else (_UNTOUCHED, _IDENTITY_ONLY)


def is_packed(data: bytes) -> bool:
    """Whether a message is gzip or zlib.

    Read as protobuf, these bytes would begin an impossible wire type, or the field 15, which no
    message of the protocol has.
    """
    head = data[:2]
    return head in _HEADS


class Unpacker:
    """Unpacks compressed messages; one for each process.

    Args:
        limit: most bytes of one unpacked message, and of all that are in use together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_use = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "unpack")

    @property
    def in_use(self) -> int:
        """Bytes of unpacked messages that are in use or being made."""
        return self._in_use

    @asynccontextmanager
    async def unpacked(self, data: bytes) -> AsyncIterator[bytes]:
        """The message inside, counted until the context ends.

        Raises:
            InvalidRequest: it is broken.
            Overloaded: it is over the limit, or there is no room for it now.
        """
        work = _Work(self, data, self._limit)
        try:
            if not work.advance(_AT_ONCE):
                await self._in_a_thread(work)
            yield work.result()
        finally:
            work.give_up()

    async def _in_a_thread(self, work: _Work) -> None:
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("too many compressed messages at a time")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, work.advance, self._limit)
        finally:
            self._waiting -= 1

    def take(self, size: int) -> None:
        """Count so many bytes more; Overloaded where there is no room for them."""
        with self._lock:
            if self._in_use + size > self._limit:
                raise Overloaded("compressed messages in progress take too much memory")
            self._in_use += size

    def give_back(self, size: int) -> None:
        """Count so many bytes less."""
        with self._lock:
            self._in_use -= size

    def close(self) -> None:
        """End the thread once it has done what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Work:
    """One message being unpacked; given up from the event loop while a thread is at it."""

    def __init__(self, unpacker: Unpacker, data: bytes, limit: int) -> None:
        self._unpacker = unpacker
        self._left: bytes = data
        self._limit = limit
        self._pieces: list[bytes] = []
        self._whole = b""
        self._size = 0
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._lock = threading.Lock()
        self._is_over = False

    def advance(self, most: int) -> bool:
        """Unpack about so many bytes more; whether that was all of it."""
        until, at_most = self._size + most, min(most, _PIECE)
        while not self._stream.eof:
            if self._size > until:
                return False
            try:
                piece = self._stream.decompress(self._left, at_most)
            except zlib.error as error:
                raise InvalidRequest(f"the compressed message is broken: {error}") from None
            self._left = self._stream.unconsumed_tail
            if not self._keep(piece):
                return True
            if not piece and not self._stream.eof:
                raise InvalidRequest("the compressed message is cut short")
        if self._stream.unused_data:
            raise InvalidRequest("the compressed message has something behind it")
        with self._lock:
            pieces = self._pieces
            self._whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
        return True

    def _keep(self, piece: bytes) -> bool:
        with self._lock:
            if self._is_over:
                return False
            if self._size + len(piece) > self._limit:
                raise Overloaded(f"a message is larger than max ({self._limit} bytes unpacked)")
            self._unpacker.take(len(piece))
            self._size += len(piece)
            self._pieces.append(piece)
            return True

    def result(self) -> bytes:
        """The whole message, once `advance` has said so."""
        return self._whole

    def give_up(self) -> None:
        """Count its memory as free, also where a thread is still at it."""
        with self._lock:
            self._is_over = True
            self._pieces.clear()
            self._whole = self._left = b""
            self._unpacker.give_back(self._size)
            self._size = 0


class UnpackingServer:
    """A server to add small services of protobuf messages to: theirs may be compressed, too.

    Args:
        server: to which they are added in the end.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As gRPC's servers do."""
        self._server.add_generic_rpc_handlers([_Unpacking(handler) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """As gRPC's asynchronous servers do: nothing, the generic handlers are asked."""


class _Unpacking(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, inner: grpc.GenericRpcHandler) -> None:
        self._inner = inner

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler: Any = self._inner.service(details)
        if handler is None:
            return None
        return handler._replace(request_deserializer=_reading(handler.request_deserializer))


def _reading(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def reader(data: bytes) -> Any:
        return read(_small(data) if is_packed(data) else data)

    return reader


def _small(data: bytes) -> bytes:
    """What is inside; data too large or broken as they are, for their reader to say."""
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = stream.decompress(data, _SMALL)
    except zlib.error:
        return data
    return plain if stream.eof else data
