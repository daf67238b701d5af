"""The admin listener: metrics, health, drain, reload and history over HTTP. Knows only its target.

It can stop the proxy and lift quarantines: bind it to loopback, or configure a token.
"""

from __future__ import annotations

import json
import logging
import ssl
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.control import endpoints as policy
from proxy.control.access import Access
from proxy.control.endpoints import PolicyTarget
from proxy.control.gate import gate
from proxy.drain import Mode
from proxy.drift import endpoints as drift
from proxy.drift.endpoints import DriftTarget
from proxy.explorer import endpoint as explorer
from proxy.explorer.endpoint import ExplorerTarget
from proxy.records.endpoints import Endpoints, RecordsTarget

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1152 * 1024  # a policy; what has no use for a body reads it to refuse it
SHUTDOWN_S = 2.0  # a scrape in progress gets this long on shutdown

INDEX = """Breakwater admin
GET  /console/ web page: overview, suspicious requests, thresholds to try, policy
GET  /metrics  Prometheus metrics
GET  /live     200 while the process can go on, else 503: it is to be replaced
GET  /ready    200 while new requests are taken, else 503
POST /drain    send clients away, finish what is in flight, exit; ?stay=1 exit at SIGTERM only;
               ?now=1 do not wait for clients to go, and said again, not for what is in flight
POST /reload   read the configuration file again
GET  /config   the configuration in force, as JSON
GET  /history  who raised alarms by series of queries, and who is in quarantine, as JSON
POST /history/clear?principal=NAME  lift its quarantine; ?all=1 everybody's; &model=NAME there only
GET  /drift    whether each model's traffic still looks like its calibration, as JSON
POST /drift/acknowledge?model=NAME  do as ever about a drift that is known; ?all=1 every model's
GET  /records  suspicious and failed samples, newest first; ?model=NAME&limit=100&before=UNIX_TIME
               &differing=1 those that a shadow policy judges otherwise
GET  /records/watch  the same as they come, a line of JSON each; ?everything=1 every scored sample
GET  /records/scores?model=NAME  a sample of its scores, by column, as JSON
POST /records/label  {"id": ..., "label": "benign", "adversarial" or ""}: what a sample was
GET  /explore?model=NAME&candidate={"fpr": 0.02}  its scores, and thresholds at other rates, as JSON
"""

CLEAR_USAGE = """\
whose quarantine is to be lifted? Say one of, percent-encoded:
  POST /history/clear?principal=NAME               this principal's
  POST /history/clear?all=1                        everybody's
and, to lift it at one model only, add &model=NAME
"""

DRAIN_USAGE = """\
how is it to drain? Say one of
  POST /drain          send clients away, finish what is in flight, exit
  POST /drain?stay=1   the same, but exit at SIGTERM only (for a preStop hook)
  POST /drain?now=1    do not wait for clients to go; again: nor for what is in flight
"""

_MODES: dict[tuple[tuple[str, str], ...], Mode] = {
    (): "exit",
    (("stay", "1"),): "stay",
    (("now", ""),): "now",
    (("now", "1"),): "now",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Status:
    """How the proxy is doing."""

    ready: bool
    """New requests are taken."""
    draining: bool
    in_flight: int
    """Unary requests and open streams."""
    workers: int = 1
    workers_ready: int = 1
    drained: bool = False
    """Clients have been sent away and nothing is in flight."""


class AdminTarget(RecordsTarget, ExplorerTarget, PolicyTarget, DriftTarget, Protocol):
    """What the admin listener shows and steers: one proxy, or a supervisor with its workers."""

    async def status(self) -> Status:
        """Return how it is doing now."""

    async def drain(self, mode: Mode = "exit") -> None:
        """Start the drain and return; again is harmless."""

    async def reload(self) -> bool:
        """Read the configuration again. False: refused, the old one stays in force."""

    async def config(self) -> Mapping[str, Any]:
        """Return the configuration in force, ready for JSON."""

    async def metrics(self) -> tuple[str, bytes]:
        """Return content type and body of one scrape."""

    async def history(self) -> Mapping[str, Any]:
        """Return what is known of query attacks, ready for JSON.

        `remembered` queries; `shared`: None, or the shared store's `state`, "up" or "down: why";
        `principals`: the fields of `Standing` for each who raised alarms.
        """

    async def forget(self, principal: str | None, model: str | None) -> int:
        """Lift quarantines, of a principal, at a model; None: of all. Return how many."""


class Pages(Protocol):
    """What is served besides: the console."""

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return what to serve."""

    def close(self) -> None:
        """End what is still being followed."""


class Admin:
    """Serves an `AdminTarget` on one address.

    Args:
        target: what is shown and steered.
        pages: what is served besides.
        access: who may read and who may change. Default: whoever reaches the listener may both.
        is_alive: whether the process can go on, or is to be replaced. Default: it can.
        tls: for the port; None: without.
    """

    def __init__(
        self,
        target: AdminTarget,
        pages: Pages | None = None,
        *,
        access: Access | None = None,
        is_alive: Callable[[], bool] = lambda: True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._target = target
        self._is_alive = is_alive
        self._pages = pages
        # aiohttp caches handlers for the life of the process: only we may keep the proxy alive,
        # or its connections would outlast it.
        borrowed: AdminTarget = weakref.proxy(target)
        self._records = Endpoints(borrowed)
        guards: list[Middleware] = [_guard] if access is None else [_guard, gate(access)]
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=guards)
        app.on_response_prepare.append(_name)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/metrics", self._metrics),
                web.get("/live", self._live),
                web.get("/ready", self._ready),
                web.post("/drain", self._drain),
                web.post("/reload", self._reload),
                web.get("/config", self._config),
                web.get("/history", self._history),
                web.post("/history/clear", self._clear),
                *self._records.routes(),
                *drift.routes(borrowed),
                *policy.routes(borrowed),
                web.get(explorer.PATH, explorer.handler(borrowed), allow_head=False),
            ]
        )
        if pages is not None:
            app.add_routes(pages.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)

    async def start(self, address: str | Path) -> str:
        """Listen and return the bound address.

        Args:
            address: `host:port` (port 0: any free one), or the path of a Unix socket to make.
        """
        await self._runner.setup()
        if isinstance(address, Path):
            await web.UnixSite(self._runner, str(address)).start()
            return str(address)
        host, port = _split(address)
        await web.TCPSite(self._runner, host.strip("[]"), port, ssl_context=self._tls).start()
        return f"{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening, for good; requests in progress get a moment to finish."""
        self._records.close()
        if self._pages is not None:
            self._pages.close()
        await self._runner.cleanup()
        # Handlers of ours are cached as well, and we with them.
        del self._target, self._pages, self._records, self._is_alive

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=INDEX)

    async def _live(self, _: web.Request) -> web.Response:
        if self._is_alive():
            return web.Response(text="live\n")
        return web.Response(text="the device does not answer\n", status=503)

    async def _metrics(self, _: web.Request) -> web.Response:
        content_type, body = await self._target.metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _ready(self, _: web.Request) -> web.Response:
        status = await self._target.status()
        return _json(asdict(status), 200 if status.ready else 503)

    async def _drain(self, request: web.Request) -> web.Response:
        mode = _MODES.get(tuple(request.query.items()))
        if mode is None:
            return web.Response(text=DRAIN_USAGE, status=400)
        await self._target.drain(mode)
        return _json(asdict(await self._target.status()), 202)

    async def _reload(self, _: web.Request) -> web.Response:
        if await self._target.reload():
            return _json({"reloaded": True}, 200)
        return _json({"reloaded": False, "reason": "refused; see the log"}, 409)

    async def _config(self, _: web.Request) -> web.Response:
        return _json(await self._target.config(), 200)

    async def _history(self, _: web.Request) -> web.Response:
        return _json(await self._target.history(), 200)

    async def _clear(self, request: web.Request) -> web.Response:
        whose = _whose(request.query)
        if whose is None:
            return web.Response(text=CLEAR_USAGE, status=400)
        principal, model = whose
        return _json({"cleared": await self._target.forget(principal, model)}, 200)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _whose(query: Mapping[str, str]) -> tuple[str | None, str | None] | None:
    """Principal and model whose quarantine is to be lifted; None when that is not clearly said.

    Nothing is guessed: what is lifted by mistake cannot be put back.
    """
    given = dict(query)
    said_once = len(query) == len(given)
    principal, model, every = (given.pop(name, None) for name in ("principal", "model", "all"))
    both_or_neither = (principal is None) == (every is None)
    if given or not said_once or both_or_neither or every not in (None, "1"):
        return None
    return principal, model


def _json(value: Mapping[str, Any], status: int) -> web.Response:
    text = json.dumps(value, indent=2) + "\n"
    return web.Response(text=text, status=status, content_type="application/json")


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse what no operator's tool sends; answer every failure with a fixed text."""
    try:
        # A browser names the page a cross-site POST comes from: a web page must not be able to
        # drain the proxy of whoever looks at it.
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host:
            return web.Response(text="cross-origin requests are refused\n", status=403)
        if request.body_exists:
            await request.read()
        return await handler(request)
    except web.HTTPException as refusal:
        headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else None
        text = f"{refusal.reason.lower()}\n"
        return web.Response(text=text, status=refusal.status, headers=headers)
    except Exception:  # the edge: a defect must not show its traceback to the caller
        log.exception("admin request %s failed", request.path)
        return web.Response(text="internal error\n", status=500)


async def _name(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "breakwater"  # not the interpreter's and library's versions
