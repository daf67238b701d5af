"""Lines over real HTTP: events, heartbeats, and an end however it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.console.following import relay
from proxy.control.errors import TooLargeError

Events = AsyncGenerator[Mapping[str, Any], None]


@asynccontextmanager
async def following(events: Events) -> AsyncIterator[aiohttp.ClientResponse]:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await relay(events, response, heartbeat_s=0.01)
        return response

    app = web.Application()
    app.add_routes([web.get("/", handler)])
    async with TestClient(TestServer(app)) as client, client.get("/") as response:
        yield response


async def test_events_are_lines_after_a_first_blank_one() -> None:
    async def events() -> Events:
        yield {"text": "a\nb", "score": float("nan")}
        yield {"text": "<b>"}

    async with following(events()) as response:
        lines = (await response.text()).split("\n")
    assert lines[0] == lines[-1] == ""
    assert [json.loads(line) for line in lines[1:-1] if line] == [
        {"text": "a\nb", "score": None},
        {"text": "<b>"},
    ]


async def test_silence_is_broken_and_a_page_that_went_is_noticed() -> None:
    closed = asyncio.Event()

    async def silent() -> Events:
        try:
            await asyncio.Event().wait()
            yield {}
        finally:
            closed.set()

    async with following(silent()) as response:
        assert [await response.content.readline() for _ in range(4)] == [b"\n"] * 4
        response.close()
        async with asyncio.timeout(10):
            await closed.wait()


async def test_a_refusal_that_comes_late_is_a_line() -> None:
    async def refused() -> Events:
        if closed_to_all:
            raise TooLargeError("16 watch already; end one of them")
        yield {}

    closed_to_all = True
    async with following(refused()) as response:
        last = (await response.text()).strip()
    assert json.loads(last) == {"error": "16 watch already; end one of them"}
