"""Asking a worker that is there, and those that are not, or answer nonsense."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy.drift.siblings import ask


@asynccontextmanager
async def worker(socket: Path, *routes: web.AbstractRouteDef) -> AsyncIterator[None]:
    """A worker's admin listener with these routes."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_what_is_asked_arrives_and_is_answered(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"said": await request.json()})

    async with worker(tmp_path / "w.sock", web.post("/echo", echo)):
        assert await ask(tmp_path / "w.sock", "POST", "/echo", {"a": 1}) == {"said": {"a": 1}}


@pytest.mark.parametrize("text", ["[]", "nonsense", "null"])
async def test_nonsense_is_no_answer(tmp_path: Path, text: str) -> None:
    async def say(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    async with worker(tmp_path / "w.sock", web.get("/", say)):
        assert await ask(tmp_path / "w.sock", "GET", "/") is None
        assert await ask(tmp_path / "w.sock", "GET", "/another") is None


async def test_nobody_there_is_no_answer(tmp_path: Path) -> None:
    assert await ask(tmp_path / "gone.sock", "GET", "/") is None
