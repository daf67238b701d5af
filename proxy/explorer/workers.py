"""The explorer of several workers: each looks at its own recorded scores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from proxy.errors import ConfigError
from proxy.explorer.endpoint import PATH
from proxy.explorer.merging import merged

ASK_S = 60.0
"""A fit takes a second or two, on a busy machine several times that; others may be waiting."""


async def explore(
    sockets: Sequence[Path],
    model: str,
    candidate: Mapping[str, Any] | None,
    ids: Collection[str] | None,
) -> Mapping[str, Any]:
    """What all workers found, as one; those that do not answer are done without.

    Args:
        sockets: where each worker's admin listener is.
        ids: as for `merged`.

    Raises:
        ConfigError: a worker cannot use the candidate, or none answers.
    """
    said = {"model": model, "candidate": json.dumps(candidate)}
    answers = await asyncio.gather(
        *(_ask(socket, f"{PATH}?{urlencode(said)}") for socket in sockets)
    )
    parts = [body for status, body in answers if status == 200]
    if not parts:
        refusals = [str(body.get("error", "")) for status, body in answers if status == 400]
        raise ConfigError(next(iter(refusals), "no worker answers; ask again in a moment"))
    return await asyncio.to_thread(merged, parts, ids)


async def _ask(socket: Path, path: str) -> tuple[int, Any]:
    """Status and JSON body; (0, None) when the worker does not answer."""
    connector = aiohttp.UnixConnector(path=str(socket))
    timeout = aiohttp.ClientTimeout(total=ASK_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://worker{path}") as response,
        ):
            text = await response.text()
            return response.status, await asyncio.to_thread(json.loads, text)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return 0, None
