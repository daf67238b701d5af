"""Drift on the admin port: shown, acknowledged, and not to be changed by a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.drift.endpoints import routes


class Target:
    """Two models that drift."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    async def drift(self) -> Mapping[str, Any]:
        return {"a": {"drifting": True}, "b": {"drifting": True}}

    async def acknowledge(self, model: str | None) -> Sequence[str]:
        self.asked.append(model)
        return [name for name in ("a", "b") if model in (None, name)]


async def test_what_is_held_is_shown() -> None:
    app = web.Application()
    app.add_routes(routes(Target()))
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/drift")
        assert set(await answer.json()) == {"a", "b"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [({"model": "a"}, ["a"]), ({"model": "c"}, []), ({"all": "1"}, ["a", "b"])],
)
async def test_a_drift_is_acknowledged(query: dict[str, str], expected: list[str]) -> None:
    app = web.Application()
    app.add_routes(routes(Target()))
    async with TestClient(TestServer(app)) as client:
        answer = await client.post("/drift/acknowledge", params=query)
        assert await answer.json() == {"acknowledged": expected}


@pytest.mark.parametrize("query", ["", "?all=yes", "?model=a&all=1", "?modell=a", "?model=a&x=1"])
async def test_nothing_is_guessed(query: str) -> None:
    target = Target()
    app = web.Application()
    app.add_routes(routes(target))
    async with TestClient(TestServer(app)) as client:
        answer = await client.post(f"/drift/acknowledge{query}")
        assert answer.status == 400
        assert "POST /drift/acknowledge?model=NAME" in await answer.text()
    assert target.asked == []
