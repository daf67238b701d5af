"""The records of several workers as one: merged lists and samples, a common stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from proxy.records.endpoints import HEARTBEAT_S
from proxy.records.record import Record
from proxy.records.snapshot import Snapshot, merged
from proxy.records.watches import Watch, Watches, told
from proxy.tasks import Tasks

ASK_S = 2.0
"""A worker that does not answer within this is done without."""
SCORES_S = 20.0
"""The same, where it sends megabytes."""
RETRY_S = 0.25
"""Between attempts to follow a worker that is being replaced."""
_LINE = 1 << 18  # bytes of one record, thumbnail included, that are read at a time
_AWAY = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class Workers:
    """Asks all workers, and does without those that do not answer.

    Args:
        sockets: where each worker's admin listener is, or will be again.
        on_drop: told how many records a slow watcher has lost.
    """

    def __init__(self, sockets: Sequence[Path], on_drop: Callable[[int], None]) -> None:
        self._sockets = sockets
        self._watches = Watches(on_drop)

    def close(self) -> None:
        """End all watches."""
        self._watches.close()

    async def records(
        self,
        model: str | None,
        limit: int,
        before: float | None = None,
        *,
        differing: bool = False,
    ) -> list[dict[str, Any]]:
        """Notable samples of all workers, or those a shadow judges otherwise; newest first."""
        query: dict[str, Any] = {"limit": limit}
        if model is not None:
            query["model"] = model
        if before is not None:
            query["before"] = before
        if differing:
            query["differing"] = 1
        answers = await self._ask_all("GET", f"/records?{urlencode(query)}")
        found = [record for answer in answers if isinstance(answer, list) for record in answer]
        return sorted(found, key=lambda record: -record["time_s"])[:limit]

    async def scores(self, model: str) -> Mapping[str, Any]:
        """What one process would have kept of what all of them saw."""
        path = f"/records/scores?{urlencode({'model': model})}"
        answers = await self._ask_all("GET", path, limit_s=SCORES_S)
        return await asyncio.to_thread(_merged, answers, model)

    async def label(self, id: str, label: str) -> bool:
        """Label a sample at whichever worker has it."""
        said = {"id": id, "label": label}
        answers = await self._ask_all("POST", "/records/label", said)
        return any(isinstance(each, dict) and each.get("labelled") is True for each in answers)

    def watch(self, model: str | None, everything: bool) -> AsyncIterator[dict[str, Any]]:
        """Follow all workers, and those that replace them.

        Raises:
            TooManyWatches: as many watch as may.
        """
        return self._followed(self._watches.open(model, everything=everything))

    async def _followed(self, watch: Watch) -> AsyncIterator[dict[str, Any]]:
        tasks = Tasks()
        for socket in self._sockets:
            tasks.start(self._follow(socket, watch))
        try:
            async for record in told(watch):
                yield record
        finally:
            watch.close()
            await tasks.stop()

    async def _follow(self, socket: Path, watch: Watch) -> None:
        """Pass on what one worker records, for as long as somebody watches."""
        query = {"everything": "1"} if watch.everything else {}
        if watch.model is not None:
            query["model"] = watch.model
        timeout = aiohttp.ClientTimeout(total=None, connect=ASK_S, sock_read=3 * HEARTBEAT_S)
        while not watch.is_closed:
            try:
                async with (
                    _session(socket, timeout) as session,
                    session.get("http://worker/records/watch", params=query) as response,
                ):
                    response.raise_for_status()
                    async for line in response.content:
                        if line.strip():
                            watch.tell(Record.from_json(json.loads(line)))
            except _AWAY:  # it is dead, or not there yet: another one will be
                pass
            await asyncio.sleep(RETRY_S)

    async def _ask_all(
        self, method: str, path: str, body: Any = None, *, limit_s: float = ASK_S
    ) -> list[Any]:
        asks = (_ask(socket, method, path, body, limit_s) for socket in self._sockets)
        return await asyncio.gather(*asks)


def _session(socket: Path, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(path=str(socket))
    return aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=_LINE)


async def _ask(socket: Path, method: str, path: str, body: Any, limit_s: float) -> Any:
    """The JSON a worker answers with; None where it does not."""
    try:
        async with (
            _session(socket, aiohttp.ClientTimeout(total=limit_s)) as session,
            session.request(method, f"http://worker{path}", json=body) as response,
        ):
            return await response.json()
    except _AWAY:
        return None


def _merged(answers: Sequence[Any], model: str) -> dict[str, Any]:
    snapshots = []
    for each in answers:
        with contextlib.suppress(ValueError):  # a worker out of order: done without
            snapshots.append(Snapshot.from_json(each))
    return merged(snapshots, model).to_json()
