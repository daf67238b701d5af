"""JSON for a browser: no NaN, no defects, no surprises in what comes in."""

from __future__ import annotations

import json
import math

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.console.answers import HEADERS, Refused, answer, encoded, told
from proxy.control.errors import StaleDigestError
from proxy.errors import ConfigError


def test_what_json_has_no_number_for_is_null() -> None:
    value = {"a": [math.nan, 1.5, (math.inf,)], "b": {"c": -math.inf}, "d": "NaN"}
    assert json.loads(encoded(value)) == {"a": [None, 1.5, [None]], "b": {"c": None}, "d": "NaN"}
    assert "\n" not in encoded({"text": "a\nb"})


def test_answers_are_not_kept_anywhere() -> None:
    response = answer({"a": 1})
    assert response.content_type == "application/json"
    assert {**response.headers, **HEADERS} == dict(response.headers)
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Refused(429, "too many"), 429, "too many"),
        (StaleDigestError("changed"), 409, "changed"),
        (ConfigError("no such field"), 400, "no such field"),
        (RuntimeError("/etc/secret"), 500, "internal error; the log of the proxy says more"),
    ],
)
async def test_errors_are_told_as_json(error: Exception, status: int, text: str) -> None:
    async def failing(_: web.Request) -> web.StreamResponse:
        raise error

    app = web.Application()
    app.add_routes([web.get("/", told(failing))])
    async with TestClient(TestServer(app)) as client, client.get("/") as response:
        assert response.status == status
        assert await response.json() == {"error": text}
