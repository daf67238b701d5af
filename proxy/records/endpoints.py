"""The records over HTTP: what the supervisor asks its workers, and operators ask either."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from proxy.records.record import label_of
from proxy.records.snapshot import encoded
from proxy.records.watches import TooManyWatches
from proxy.tasks import Tasks

HEARTBEAT_S = 5.0
"""A blank line is sent to a watcher this often, so that both ends notice when the other is gone."""
MAX_LIMIT = 1000
"""Most records in one answer."""

LABEL_USAGE = """\
say what a sample was, in JSON:
  POST /records/label  {"id": "REQUEST_ID:INDEX", "label": "benign"}
the label is "benign", "adversarial", or "" to take it back
"""


class RecordsTarget(Protocol):
    """Where records are: one proxy, or a supervisor with its workers."""

    async def records(
        self,
        model: str | None,
        limit: int,
        before: float | None = None,
        *,
        differing: bool = False,
    ) -> Sequence[Mapping[str, Any]]:
        """Return notable samples, newest first: `Record.to_json` of each.

        Args:
            model: of this one only.
            limit: so many at most.
            before: older than this only, Unix time.
            differing: those that a shadow policy judges otherwise, in place of the notable ones.
        """

    def watch(self, model: str | None, everything: bool) -> AsyncIterator[dict[str, Any]]:
        """Yield samples as they are recorded, notable ones or all, until the server stops.

        Raises:
            TooManyWatches: as many watch as may.
        """

    async def scores(self, model: str) -> Mapping[str, Any]:
        """Return the kept scores of a model: `Snapshot.to_json`, empty where none are kept."""

    async def label(self, id: str, label: str) -> bool:
        """Note what a sample was, "" to take it back. False: it is not kept any more.

        Raises:
            ValueError: the label is none.
        """


class Endpoints:
    """`/records` and what is below it.

    Args:
        target: where the records are.
    """

    def __init__(self, target: RecordsTarget) -> None:
        self._target = target
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """What to serve."""
        return [
            web.get("/records", self._recent, allow_head=False),
            web.get("/records/watch", self._watch, allow_head=False),
            web.get("/records/scores", self._scores, allow_head=False),
            web.post("/records/label", self._label),
        ]

    def close(self) -> None:
        """End what is being watched."""
        self._closing.set()

    async def _recent(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            limit = int(query.get("limit", "100"))
            before = float(query["before"]) if "before" in query else None
            if not 0 < limit <= MAX_LIMIT or (before is not None and not math.isfinite(before)):
                raise ValueError
        except ValueError:
            text = f"limit is a number from 1 to {MAX_LIMIT}, before a Unix time\n"
            return web.Response(text=text, status=400)
        found = await self._target.records(
            query.get("model"), limit, before, differing=query.get("differing") == "1"
        )
        body = await asyncio.to_thread(_listed, found)
        return web.Response(body=body, content_type="application/json")

    async def _scores(self, request: web.Request) -> web.Response:
        model = request.query.get("model")
        if model is None:
            return web.Response(text="of which model? Say ?model=NAME\n", status=400)
        found = await self._target.scores(model)
        text = await asyncio.to_thread(encoded, found)
        return web.Response(body=text, content_type="application/json")

    async def _label(self, request: web.Request) -> web.Response:
        try:
            said = json.loads(await request.read())
            if not isinstance(said, dict) or set(said) != {"id", "label"}:
                raise ValueError(LABEL_USAGE)
            if not isinstance(said["id"], str):
                raise ValueError(LABEL_USAGE)
            label = label_of(said["label"])
        except (ValueError, RecursionError):
            return web.Response(text=LABEL_USAGE, status=400)
        is_known = await self._target.label(said["id"], label)
        return web.json_response({"labelled": is_known}, status=200 if is_known else 404)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        try:
            watch = self._target.watch(query.get("model"), query.get("everything") == "1")
        except TooManyWatches as error:
            return web.Response(text=f"{error}\n", status=503)
        headers = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        lines = _with_heartbeat(watch, self._closing)
        async with contextlib.aclosing(lines):
            with contextlib.suppress(ConnectionError):  # whoever watched has gone
                async for line in lines:
                    await response.write(line)
        return response


def _listed(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Records as JSON, one after the other: a picture in each makes megabytes of them."""
    return f"[{', '.join(map(json.dumps, records))}]\n".encode()


async def _with_heartbeat(
    watch: AsyncIterator[dict[str, Any]], closing: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """What is watched, a line each; blank ones first and while there is nothing to tell."""
    tasks = Tasks()
    following = tasks.start(_next(watch), quiet=True)
    ended = tasks.start(closing.wait())
    try:
        yield b"\n"
        while not ended.done():
            await asyncio.wait(
                (following, ended), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not following.done():
                yield b"\n"
                continue
            record = following.result()
            if record is None:
                return
            following = tasks.start(_next(watch), quiet=True)
            yield json.dumps(record).encode() + b"\n"
    finally:
        await tasks.stop()
        if isinstance(watch, AsyncGenerator):
            await watch.aclose()


async def _next(watch: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(watch, None)
