"""The read-only listener: metrics, liveness and readiness over HTTP, and nothing else.

It has no token and may be reached by a whole cluster. So it can change nothing, tells nothing that
names a client, and what it costs is bounded: connections, their lifetime, and how often what it
shows is put together, however often it is asked for.

Counters of verdicts are an oracle: whoever reads them before and after a request of his own to a
quiet model learns its verdict. That cannot be had both ways; here it is made slow and coarse (old
by up to `METRICS_FRESH_S`, no sums of p-values), and the rest is for a network policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from aiohttp import web

from proxy.admin import Status
from proxy.errors import ConfigError

MOST_CONNECTIONS = 64
"""At a time; one more is dropped at once. Each is for one request."""
LIFETIME_S = 10.0
"""Past it a connection is dropped: Prometheus gives up on a scrape after 10 s by default."""
STATUS_FRESH_S = 0.2
"""A status put together within this time is shown again, seconds."""
METRICS_FRESH_S = 5.0
"""The same of the metrics: the shortest time in which a reader can tell two requests apart."""
_GRADED = b"breakwater_detector_p_value_sum"
"""The change of this sum is one request's p-value, to the last digit; buckets tell its decade."""
_SHUTDOWN_S = 1.0
_MOST_BYTES = 1024

log = logging.getLogger(__name__)

T = TypeVar("T")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class MetricsTarget(Protocol):
    """What the listener shows: one proxy, or a supervisor with its workers."""

    async def status(self) -> Status:
        """Return how it is doing now."""

    async def metrics(self) -> tuple[str, bytes]:
        """Return content type and body of one scrape."""


class _Shared(Generic[T]):
    """One answer for all who ask at about the same time."""

    def __init__(self, ask: Callable[[], Awaitable[T]], fresh_s: float) -> None:
        self._ask = ask
        self._fresh_s = fresh_s
        self._coming: asyncio.Future[T] | None = None
        self._asked_s = 0.0

    async def get(self) -> T:
        """The answer, asked for less than `fresh_s` ago or under way still."""
        coming, now = self._coming, time.monotonic()
        is_old = now - self._asked_s >= self._fresh_s
        if coming is None or (coming.done() and (is_old or _has_failed(coming))):
            self._asked_s = now
            coming = self._coming = asyncio.ensure_future(self._ask())
        return await asyncio.shield(coming)  # whoever goes leaves it to the others


def _has_failed(done: asyncio.Future[T]) -> bool:
    return done.cancelled() or done.exception() is not None


class _Refusal(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Drop it."""
        transport.close()


class MetricsListener:
    """Serves `/metrics`, `/live` and `/ready` of a target on one address."""

    def __init__(self, target: MetricsTarget) -> None:
        # aiohttp caches handlers for the life of the process: they must not keep the proxy alive.
        borrowed: MetricsTarget = weakref.proxy(target)
        self._scrape = _Shared(lambda: _coarse(borrowed.metrics()), METRICS_FRESH_S)
        self._status = _Shared(lambda: borrowed.status(), STATUS_FRESH_S)
        app = web.Application(client_max_size=_MOST_BYTES, middlewares=[_guard])
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/live", _live),
                web.get("/ready", self._ready),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> str:
        """Listen on `host:port` (port 0: any free one) and return the bound address.

        Raises:
            OSError: it cannot be listened on.
        """
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, host.strip("[]"), int(port))
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening, for good; requests in progress get a moment to finish."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _connect(self) -> asyncio.BaseProtocol:
        """The protocol of one connection."""
        server = self._runner.server
        if server is None or len(server.connections) >= MOST_CONNECTIONS:
            return _Refusal()
        connection = server()
        asyncio.get_running_loop().call_later(LIFETIME_S, connection.force_close)
        return connection

    async def _metrics(self, _: web.Request) -> web.Response:
        content_type, body = await self._scrape.get()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _ready(self, _: web.Request) -> web.Response:
        status = await self._status.get()
        if status.ready:
            return web.Response(text="ready\n")
        return web.Response(text="not ready\n", status=503)


@contextlib.asynccontextmanager
async def listening(target: MetricsTarget, address: str | None) -> AsyncIterator[str]:
    """Show a target while inside; gives the bound address, empty where there is none to be.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    if address is None:
        yield ""
        return
    listener = MetricsListener(target)
    try:
        try:
            bound = await listener.start(address)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"cannot listen on {address} (metrics): {reason}") from error
        log.info("metrics on http://%s/metrics", bound)
        yield bound
    finally:
        await listener.stop()


async def _coarse(scrape: Awaitable[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A scrape without what tells one request's score exactly."""
    content_type, body = await scrape
    lines = body.splitlines(keepends=True)
    return content_type, b"".join(line for line in lines if not line.startswith(_GRADED))


async def _live(_: web.Request) -> web.Response:
    return web.Response(text="live\n")


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer every failure with a fixed text; end the connection after the answer."""
    try:
        response = await handler(request)
    except web.HTTPException as refusal:
        headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else None
        text = f"{refusal.reason.lower()}\n"
        response = web.Response(text=text, status=refusal.status, headers=headers)
    except Exception:  # the edge: a defect must not show its traceback to the caller
        log.exception("request for %s failed", request.path)
        response = web.Response(text="internal error\n", status=500)
    response.headers["Server"] = "breakwater"  # not the interpreter's and library's versions
    response.force_close()
    return response
