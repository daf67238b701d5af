"""The page's files over real HTTP."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from proxy.console.files import PAGE_POLICY, STATIC, Files, plotly_script
from tests.proxy.console.shown import Shown


async def test_the_page_may_run_nothing_but_its_own_files(shown: Shown) -> None:
    async with aiohttp.ClientSession(shown.url) as session:
        for name in ("", *(path.name for path in STATIC.iterdir())):
            async with session.get(f"/console/{name}") as response:
                assert response.status == 200
                assert response.headers["Content-Security-Policy"] == PAGE_POLICY
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["X-Frame-Options"] == "DENY"
    rules = dict(rule.split(" ", 1) for rule in PAGE_POLICY.split("; "))
    assert rules["script-src"] == "'self'"
    assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == "'none'"


async def test_unchanged_files_are_not_sent_again(shown: Shown) -> None:
    async with aiohttp.ClientSession(shown.url) as session:
        async with session.get("/console/app.js") as response:
            tag = response.headers["ETag"]
            assert response.headers["Cache-Control"] == "no-cache"
        async with session.get("/console/app.js", headers={"If-None-Match": tag}) as response:
            assert (response.status, await response.read()) == (304, b"")


async def test_the_name_without_a_slash_leads_there(shown: Shown) -> None:
    async with (
        aiohttp.ClientSession(shown.url) as session,
        session.get("/console", allow_redirects=False) as response,
    ):
        assert (response.status, response.headers["Location"]) == (308, "/console/")


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "..%2f__init__.py",
        "%2e%2e/api.py",
        "..",
        "%2Fetc%2Fpasswd",
        "app.js%00",
        "routes.py",
    ],
)
async def test_no_other_file_is_served(shown: Shown, name: str) -> None:
    async with aiohttp.ClientSession() as session:
        url = URL(f"{shown.url}/console/{name}", encoded=True)
        async with session.get(url, allow_redirects=False) as response:
            assert response.status == 404 or str(response.url.path) == "/"


async def test_plotly_is_the_packages_own_file_and_kept_a_while(shown: Shown) -> None:
    script = plotly_script()
    assert script is not None
    async with aiohttp.ClientSession(shown.url) as session:
        async with session.get("/console/plotly.js") as response:
            assert response.status == 200
            assert response.content_type == "text/javascript"
            assert "max-age" in response.headers["Cache-Control"]
            assert len(await response.read()) == script.stat().st_size
            tag = response.headers["ETag"]
        async with session.get("/console/plotly.js", headers={"If-None-Match": tag}) as response:
            assert response.status == 304


async def test_without_the_package_there_is_no_script() -> None:
    app = web.Application()
    app.add_routes(Files(None).routes())
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            port = runner.addresses[0][1]
            async with session.get(f"http://127.0.0.1:{port}/console/plotly.js") as response:
                assert response.status == 404
    finally:
        await runner.cleanup()


def test_nothing_turns_text_into_markup() -> None:
    banned = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\("
    )
    for path in STATIC.glob("*.js"):
        assert not banned.search(path.read_text()), path


def test_the_page_reaches_for_nothing_elsewhere() -> None:
    for path in STATIC.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style", text)


def test_the_files_are_part_of_the_package() -> None:
    pyproject = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text()
    for suffix in {path.suffix for path in STATIC.iterdir()}:
        assert f'"static/*{suffix}"' in pyproject
    assert '  "proxy.console",' in pyproject
