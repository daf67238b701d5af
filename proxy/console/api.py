"""The console's JSON: what the page shows, and the few things it may change.

Whoever asks has to pass the rule of access first. What is asked goes on to `Control`, which the
gRPC service serves too; here is only what HTTP and a browser want of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from proxy.console.answers import HEADERS, Handler, Refused, answer, body_of, told
from proxy.console.following import relay
from proxy.console.overview import age_hours, blank, calibration_date, summary
from proxy.control.access import is_own_name
from proxy.control.control import Control

MAX_WATCHING = 16
"""Pages that may follow the samples at once."""
FRESH_S = 0.5
"""A scrape is parsed at most this often, however many pages are open."""
MAX_LISTED = 200


class Target(Protocol):
    """The proxy, for what no other caller of `Control` asks."""

    async def config(self) -> Mapping[str, Any]:
        """Return the configuration in force, ready for JSON."""

    async def metrics(self) -> tuple[str, bytes]:
        """Return content type and body of one scrape."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Explore(_Body):
    model: str
    candidate: dict[str, Any] | None = None


class _Change(_Body):
    model: str
    settings: dict[str, Any] = Field(min_length=1)
    if_digest: str
    dry_run: bool


class _Rollback(_Body):
    if_digest: str
    dry_run: bool


class _Label(_Body):
    id: str = Field(max_length=256)
    label: Literal["", "benign", "adversarial"]


class Api:
    """The handlers.

    Args:
        target: the proxy.
        control: does what is asked, and has the rule of access.
    """

    def __init__(self, target: Target, control: Control) -> None:
        self._target = target
        self._control = control
        self._watching: set[asyncio.Task[Any]] = set()
        self._fresh = asyncio.Lock()
        self._overview_at_s = -FRESH_S
        self._overview: dict[str, Any] = {}

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return what to serve."""
        return [
            web.get("/api/overview", self._reading(self._show_overview)),
            web.get("/api/suspicious", self._reading(self._show_suspicious)),
            web.get("/api/disagreements", self._reading(self._show_disagreements)),
            web.get("/api/watch", self._reading(self._watch)),
            web.post("/api/explore", self._reading(self._explore)),
            web.get("/api/policy", self._reading(self._show_policy)),
            web.post("/api/policy", self._writing(self._change)),
            web.post("/api/rollback", self._writing(self._roll_back)),
            web.post("/api/label", self._writing(self._label)),
        ]

    def close(self) -> None:
        """End the streams; nothing may be asked afterwards."""
        for task in self._watching:
            task.cancel()

    def _reading(self, handler: Handler) -> Handler:
        return self._checked(handler, write=False)

    def _writing(self, handler: Handler) -> Handler:
        """A dry run, too: it makes a worker load the files that it names."""
        return self._checked(handler, write=True)

    def _checked(self, handler: Handler, *, write: bool) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            self._check(request, write=write)
            return await handler(request)

        return told(checked)

    def _check(self, request: web.Request, *, write: bool) -> None:
        """Raise Refused unless the caller may read, or change.

        A web page elsewhere can give its own name our address (DNS rebinding) and read what is
        open to everybody on this machine: without a token we answer to no name but localhost's.
        """
        access = self._control.access
        if reason := access.allows(request.headers.get("Authorization"), write):
            raise Refused(reason.http, reason)
        if not access.wants_token and not is_own_name(request.host):
            raise Refused(403, "open this page by address or as localhost, or use a token")

    # -- what is shown ---------------------------------------------------------------------------

    async def _show_overview(self, _: web.Request) -> web.Response:
        async with self._fresh:
            if time.monotonic() - self._overview_at_s >= FRESH_S:
                self._overview = await self._collect()
                self._overview_at_s = time.monotonic()
        return answer(self._overview)

    async def _collect(self) -> dict[str, Any]:
        status, config = await self._control.status(), await self._target.config()
        _, body = await self._target.metrics()
        now = datetime.now(UTC)
        # Thousands of lines: parsed on the loop they would hold up requests.
        shown = await asyncio.to_thread(_described, body, config, now)
        history = await self._control.history()
        return {
            **shown,
            "time_s": now.timestamp(),
            "status": {
                "ready": status.ready,
                "draining": status.draining,
                "in_flight": status.in_flight,
                "workers": status.workers,
                "workers_ready": status.workers_ready,
            },
            "shared": history["shared"],
        }

    async def _show_suspicious(self, request: web.Request) -> web.Response:
        limit = _limit(request.query.get("limit", "50"))
        records = await self._control.suspicious(request.query.get("model") or None, limit)
        history = await self._control.history()
        shown = {"records": records, "principals": history["principals"][:MAX_LISTED]}
        return await asyncio.to_thread(answer, shown)  # a picture in each makes megabytes

    async def _show_disagreements(self, request: web.Request) -> web.Response:
        model = request.query.get("model") or None
        found = await self._control.disagreements(model, MAX_LISTED)
        return await asyncio.to_thread(answer, {"records": found})

    async def _explore(self, request: web.Request) -> web.Response:
        asked = await body_of(request, _Explore)
        found = await self._control.explore(asked.model, asked.candidate)
        return await asyncio.to_thread(answer, found)  # tens of thousands of numbers

    # -- what follows ----------------------------------------------------------------------------

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if len(self._watching) >= MAX_WATCHING:
            raise Refused(429, f"{MAX_WATCHING} pages follow already; close one")
        everything = request.query.get("everything") == "1"
        headers = {**HEADERS, "Content-Type": "application/x-ndjson", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a handler runs in a task)
        self._watching.add(task)
        try:
            await response.prepare(request)
            await relay(
                self._control.watch(request.query.get("model") or None, everything), response
            )
        except ConnectionResetError:
            pass  # the page was closed
        finally:
            self._watching.discard(task)
        return response

    # -- what is changed -------------------------------------------------------------------------

    async def _show_policy(self, _: web.Request) -> web.Response:
        return answer(await self._control.get_policy())

    async def _change(self, request: web.Request) -> web.Response:
        asked = await body_of(request, _Change)
        return answer(
            await self._control.change(
                asked.model, asked.settings, if_digest=asked.if_digest, dry_run=asked.dry_run
            )
        )

    async def _roll_back(self, request: web.Request) -> web.Response:
        asked = await body_of(request, _Rollback)
        return answer(await self._control.rollback(asked.if_digest, dry_run=asked.dry_run))

    async def _label(self, request: web.Request) -> web.Response:
        asked = await body_of(request, _Label)
        await self._control.label(asked.id, asked.label)
        return answer({"id": asked.id, "label": asked.label})


def _described(body: bytes, config: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The scrape, and of each configured model what the configuration says."""
    shown = summary(body)
    for name, model in config["models"].items():
        folder = model.get("calibration")
        date = None if folder is None else calibration_date(Path(folder))
        shown["models"].setdefault(name, blank())["policy"] = {
            **{field: model[field] for field in ("mode", "action", "dispatch", "fpr")},
            "detectors": [part["name"] for part in model["detectors"]],
            # As the file has them, for a change to leave out some.
            "parts": [{k: v for k, v in part.items() if v} for part in model["detectors"]],
            "purifiers": [part["name"] for part in model["purifiers"]],
            "calibrated": date,
            "calibration_age_hours": age_hours(date, now),
        }
    return shown


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MAX_LISTED):
        raise Refused(400, f"limit: a number from 1 to {MAX_LISTED}")
    return int(text)
