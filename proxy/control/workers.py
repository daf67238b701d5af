"""The policy of several workers, as of one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

from proxy.control.endpoints import PATH

ASK_S = 2.0
CHECK_S = 120.0
"""A check loads the networks of all models beside the traffic."""

_AWAY = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


async def policy(sockets: Sequence[Path]) -> Mapping[str, Any]:
    """What is in force in all workers; one that does not answer has a digest like no text's."""
    asks = (_ask(socket, "GET", PATH, limit_s=ASK_S) for socket in sockets)
    answers = await asyncio.gather(*asks)
    found = [body for status, body in answers if status == 200]
    refusals = [str(body["refusal"]) for body in found if body["refusal"]]
    digests = {digest for body in found for digest in body["digests"]}
    if len(found) < len(sockets):
        refusals.append(f"{len(sockets) - len(found)} of {len(sockets)} workers do not answer")
        digests.add("")
    return {
        "generation": max((int(body["generation"]) for body in found), default=0),
        "digests": sorted(digests),
        "refusal": refusals[0] if refusals else "",
    }


async def check_policy(sockets: Sequence[Path], text: str) -> list[str] | None:
    """What the first worker that answers says of a text; None when there is none.

    A worker judges, since it has what that takes (torch, above all) and the supervisor has not.
    """
    for socket in sockets:
        path, data = f"{PATH}/check", text.encode()
        status, body = await _ask(socket, "POST", path, data, limit_s=CHECK_S)
        if status == 200:
            return [str(problem) for problem in body["problems"]]
    return None


async def _ask(
    socket: Path, method: str, path: str, data: bytes | None = None, *, limit_s: float
) -> tuple[int, Any]:
    """Status and JSON body; (0, None) when the worker does not answer."""
    body = None if data is None else BytesIO(data)
    connector = aiohttp.UnixConnector(path=str(socket))
    timeout = aiohttp.ClientTimeout(total=limit_s)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://worker{path}", data=body) as response,
        ):
            return response.status, await response.json()
    except _AWAY:
        return 0, None
