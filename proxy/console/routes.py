"""The console as the admin listener mounts it."""

from __future__ import annotations

from aiohttp import web

from proxy.console.api import Api
from proxy.console.files import Files, plotly_script
from proxy.console.target import Policies, Target
from proxy.control.access import Access


class Console:
    """The page at /console/ and its JSON under /api/.

    Args:
        target: what is shown.
        policies: reads and changes the policy; None where there is no file to change.
        access: who may do what.
    """

    def __init__(self, target: Target, policies: Policies | None, access: Access) -> None:
        self._api = Api(target, policies, access)
        self._files = Files(plotly_script())

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return what the listener is to serve besides its own."""
        return [*self._files.routes(), *self._api.routes()]

    def close(self) -> None:
        """End what is still being followed."""
        self._api.close()
