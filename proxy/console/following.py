"""Events as they come, as lines of JSON over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from aiohttp import web

from proxy.console.answers import encoded
from proxy.control.errors import ControlError

HEARTBEAT_S = 5.0
"""Silence after which a blank line tells the page that it still follows, and us whether it does."""


async def relay(
    events: AsyncGenerator[Mapping[str, Any], None],
    response: web.StreamResponse,
    *,
    heartbeat_s: float = HEARTBEAT_S,
) -> None:
    """Write each event as a line, and a blank one when there was none for a while.

    Args:
        events: what is told; closed at the end, however that comes.
        response: a prepared one.
        heartbeat_s: the while.

    Raises:
        ConnectionResetError: nobody listens any more.
    """
    await response.write(b"\n")  # tells the page that it follows now
    coming = asyncio.ensure_future(anext(events))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=heartbeat_s)
            if not done:
                await response.write(b"\n")
                continue
            event = coming.result()
            coming = asyncio.ensure_future(anext(events))
            await response.write(encoded(event).encode() + b"\n")
    except StopAsyncIteration:
        return
    except ControlError as error:  # too late for a status
        await response.write(encoded({"error": str(error)}).encode() + b"\n")
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()
