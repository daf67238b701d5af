"""The explorer over HTTP: what the supervisor asks its workers, and operators ask either."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from proxy.errors import ConfigError
from proxy.records.snapshot import encoded

PATH = "/explore"

USAGE = """\
say GET /explore?model=NAME and, percent-encoded, &candidate=JSON with the fields of another policy
that differ from the one in force: fpr, detectors, cascade
"""


class ExplorerTarget(Protocol):
    """What can be explored: one proxy, or a supervisor with its workers."""

    async def explore(self, model: str, candidate: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return what policies say of recorded scores; see `Explorer.explore`.

        Args:
            candidate: the other policy's fields that differ; None for the one in force alone.

        Raises:
            ConfigError: the model has no detectors, or the candidate cannot be used.
        """


def handler(target: ExplorerTarget) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What answers `GET /explore`."""

    async def explore(request: web.Request) -> web.Response:
        query = dict(request.query)
        try:
            model, said = query.pop("model"), query.pop("candidate", "null")
            candidate = json.loads(said)
            if query or not isinstance(candidate, dict | None):
                raise ValueError
        except (KeyError, ValueError, RecursionError):
            return _refused(USAGE)
        try:
            found = await target.explore(model, candidate)
        except ConfigError as error:
            return _refused(str(error))
        text = await asyncio.to_thread(encoded, found)
        return web.Response(body=text, content_type="application/json")

    return explore


def _refused(text: str) -> web.Response:
    return web.json_response({"error": text}, status=400)
