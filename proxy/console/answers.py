"""What every answer of the console's API has in common: JSON, never stored, errors as `{error}`."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from proxy.control.errors import ControlError
from proxy.errors import ConfigError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Body = TypeVar("Body", bound=BaseModel)

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: the HTTP status.
        text: what is wrong and what to do about it.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def answer(value: Any, status: int = 200) -> web.Response:
    """Return a value as an answer in JSON."""
    headers = {**HEADERS, **({"WWW-Authenticate": "Bearer"} if status == 401 else {})}
    return web.Response(
        text=encoded(value), status=status, content_type="application/json", headers=headers
    )


def encoded(value: Any) -> str:
    """Return a value as JSON on one line; what JSON has no number for becomes null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def told(handler: Handler) -> Handler:
    """Return the handler with its errors told as JSON, and defects as no more than a fixed text."""

    async def telling(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refusal:
            return answer({"error": str(refusal)}, refusal.status)
        except ControlError as error:
            return answer({"error": str(error)}, error.http)
        except ConfigError as error:
            return answer({"error": str(error)}, 400)
        except Exception:  # the edge: a defect must not show its traceback to the caller
            log.exception("console request %s failed", request.path)
            return answer({"error": "internal error; the log of the proxy says more"}, 500)

    return telling


async def body_of(request: web.Request, kind: type[Body]) -> Body:
    """Return the request's JSON body.

    Raises:
        Refused: it is no JSON, or not what is wanted.
    """
    if request.content_type != "application/json":
        raise Refused(415, "send the body as application/json")
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Refused(400, f"{where}: {first['msg']}") from None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
