"""What the supervisor asks its workers of the policy, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

PATH = "/policy"


class PolicyTarget(Protocol):
    """Who runs a policy: one proxy, or a supervisor with its workers."""

    async def policy(self) -> Mapping[str, Any]:
        """Return `generation`, `digests` of the texts in force, and `refusal`: why not, or ""."""

    async def check_policy(self, text: str) -> Sequence[str] | None:
        """Return what a reload would refuse of a text; None when there is nobody to ask."""


def routes(target: PolicyTarget) -> list[web.RouteDef]:
    """What to serve."""

    async def show(_: web.Request) -> web.Response:
        return web.json_response(await target.policy())

    async def check(request: web.Request) -> web.Response:
        try:
            text = (await request.read()).decode()
        except UnicodeDecodeError:
            return web.Response(text="the policy is not valid UTF-8\n", status=400)
        problems = await target.check_policy(text)
        if problems is None:
            return web.Response(text="no worker answers\n", status=503)
        return web.json_response({"problems": list(problems)})

    return [web.get(PATH, show, allow_head=False), web.post(f"{PATH}/check", check)]
