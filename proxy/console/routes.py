"""The console as the admin listener mounts it."""

from __future__ import annotations

import weakref

from aiohttp import web

from proxy.console.api import Api, Target
from proxy.console.files import Files, plotly_script
from proxy.control.control import Control


class Console:
    """The page at /console/ and its JSON under /api/.

    Args:
        target: the proxy.
        control: does what is asked, and has the rule of access.
    """

    def __init__(self, target: Target, control: Control) -> None:
        self._kept = target, control
        # aiohttp caches handlers for the life of the process; the proxy shall end with us.
        self._api = Api(weakref.proxy(target), weakref.proxy(control))
        self._files = Files(plotly_script())

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return what the listener is to serve besides its own."""
        return [*self._files.routes(), *self._api.routes()]

    def close(self) -> None:
        """End what is still being followed."""
        self._api.close()
