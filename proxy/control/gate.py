"""Who may ask what of the admin listener, before anything is done about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.control import endpoints as policy
from proxy.control.access import Access, Refusal, is_own_name
from proxy.drift import endpoints as drift
from proxy.explorer import endpoint as explorer

_PROBES = ("/metrics", "/live", "/ready")
"""Prometheus and Kubernetes ask these, by any name and without a token."""

_ASK_THEMSELVES = ("/console", "/api/")
"""The console's files tell nothing and ask for a token; its JSON applies the rule itself."""

_ALWAYS_GATED = ("/records", explorer.PATH, policy.PATH, drift.PATH)
"""Without a token these can be read on loopback only and change nothing. The others of the admin
listener are older than tokens: a preStop hook inside the pod drains by its address."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STRANGE_NAME = Refusal(
    "ask by IP address or as localhost, or set control.token_file in the configuration, restart, "
    "and show the token"
)


def gate(access: Access) -> Middleware:
    """Let through what the rule allows, and answer the rest with the reason."""

    @web.middleware
    async def admit(request: web.Request, handler: _Handler) -> web.StreamResponse:
        reason = _refusal(request, access)
        if reason is None:
            return await handler(request)
        headers = {"WWW-Authenticate": "Bearer"} if reason.http == 401 else None
        return web.Response(text=f"{reason}\n", status=reason.http, headers=headers)

    return admit


def _refusal(request: web.Request, access: Access) -> Refusal | None:
    path = request.path
    if path in _PROBES:
        return None
    if not access.wants_token and not is_own_name(request.host):
        return _STRANGE_NAME
    if path == "/" or path.startswith(_ASK_THEMSELVES):
        return None
    if not access.wants_token and not path.startswith(_ALWAYS_GATED):
        return None
    changes = request.method not in ("GET", "HEAD")
    return access.allows(request.headers.get("Authorization"), changes)
