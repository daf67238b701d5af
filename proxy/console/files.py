"""The console's files, with the headers that let them do no more than the page needs."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

STATIC = Path(__file__).with_name("static")
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

# Scripts only from our own files, so that text which found its way into the page could not run.
# Plotly makes its style sheet in the page, hence inline styles; thumbnails are data: URLs.
PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",  # browsers older than frame-ancestors
}
PLOTLY_CACHING = "private, max-age=86400"  # 4.8 MB; a newer package has another ETag


class File(NamedTuple):
    """One file, ready to send."""

    body: bytes
    content_type: str
    etag: str


class Files:
    """Serves the page, its parts, and Plotly's own script where that package is installed.

    Args:
        plotly: the script; None where the package is missing.
    """

    def __init__(self, plotly: Path | None) -> None:
        self._files = {path.name: _read(path) for path in sorted(STATIC.iterdir())}
        self._plotly = plotly

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return what to serve."""
        return [
            web.get("/console", self._to_page),
            web.get("/console/", self._file),
            web.get("/console/plotly.js", self._plotly_script),
            web.get("/console/{name}", self._file),
        ]

    async def _to_page(self, _: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": "/console/", **HEADERS})

    async def _file(self, request: web.Request) -> web.Response:
        # Only names read at the start exist: no path of the client's ever reaches the disk.
        file = self._files.get(request.match_info.get("name", "index.html"))
        if file is None:
            raise web.HTTPNotFound
        headers = {
            **HEADERS,
            "Content-Security-Policy": PAGE_POLICY,
            "Cache-Control": "no-cache",
            "ETag": f'"{file.etag}"',
        }
        if any(tag.value == file.etag for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=file.body, content_type=file.content_type, charset="utf-8", headers=headers
        )

    async def _plotly_script(self, _: web.Request) -> web.StreamResponse:
        if self._plotly is None:
            raise web.HTTPNotFound
        return web.FileResponse(
            self._plotly,
            headers={
                **HEADERS,
                "Cache-Control": PLOTLY_CACHING,
                "Content-Type": "text/javascript; charset=utf-8",
            },
        )


def plotly_script() -> Path | None:
    """Return where the installed plotly package keeps its script; None when it is missing."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("package_data") / "plotly.min.js"
    return path if path.is_file() else None


def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16])
