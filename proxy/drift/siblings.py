"""Asking a worker over its own socket; also what one worker asks another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

ASK_S = 2.0
"""For what a worker has at hand."""
LOOK_S = 10.0
"""A look at the traffic of all workers takes tenths of a second, on a busy machine several; and it
waits for siblings that may hang, `ASK_S`."""


async def ask(
    socket: Path, method: str, path: str, body: Any = None, *, limit_s: float = ASK_S
) -> dict[str, Any] | None:
    """What a worker answers; None where it does not in time, or refuses."""
    connector = aiohttp.UnixConnector(path=str(socket))
    timeout = aiohttp.ClientTimeout(total=limit_s)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://worker{path}", json=body) as response,
        ):
            answer = await response.json() if response.status == 200 else None
            return answer if isinstance(answer, dict) else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
