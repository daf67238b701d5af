"""The admin listener's gate over real HTTP: web pages under our address, networks, tokens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from proxy.admin import Admin
from proxy.control.access import Access, Token
from tests.proxy.control.ports import POLICY, TOKEN, token_file
from tests.proxy.control.target import PolicyTarget

OPEN = [("GET", path) for path in ("/metrics", "/live", "/ready")]
OLD = [
    *[("GET", path) for path in ("/", "/config", "/history")],
    *[("POST", path) for path in ("/reload", "/history/clear?all=1", "/drain")],
]
READ = [("GET", path) for path in ("/policy", "/explore?model=cnn", "/records", "/drift")]
WRITE = [
    *[("POST", "/policy/check"), ("POST", "/records/label")],
    ("POST", "/drift/acknowledge?all=1"),
]
STRANGE = ("evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.nip.io", "")


class Scene:
    """An admin listener and what is behind it."""

    def __init__(self, session: aiohttp.ClientSession, target: PolicyTarget) -> None:
        self._session = session
        self.target = target

    async def ask(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        async with self._session.request(method, path, headers=headers) as response:
            return response.status, await response.text()


@contextlib.asynccontextmanager
async def listening(folder: Path, access: Access) -> AsyncIterator[Scene]:
    (folder / "policy.yaml").write_text(POLICY)
    target = PolicyTarget(folder / "policy.yaml")
    admin = Admin(target, access=access)
    address = await admin.start("127.0.0.1:0")
    try:
        async with aiohttp.ClientSession(f"http://{address}") as session:
            yield Scene(session, target)
    finally:
        await admin.stop()


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("host", STRANGE)
async def test_a_web_page_that_gave_its_name_our_address_reads_and_steers_nothing(
    tmp_path: Path, host: str, loopback: bool
) -> None:
    async with listening(tmp_path, Access(loopback=loopback)) as subject:
        for method, path in [*OLD, *READ, *WRITE]:
            # To the browser this is the page's own origin; it may send any header there.
            headers = {"Host": host, "Origin": f"http://{host}", "Authorization": f"Bearer {TOKEN}"}
            status, text = await subject.ask(method, path, **headers)
            assert (status, "by IP address" in text) == (403, True), path
        assert not subject.target.drained
        assert subject.target.forgotten == []
        assert subject.target.generation == 1


async def test_probes_and_scrapes_come_by_any_name(tmp_path: Path) -> None:
    async with listening(tmp_path, Access()) as subject:
        for method, path in OPEN:
            status, _ = await subject.ask(method, path, Host="breakwater.default.svc:9090")
            assert status != 403, path


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1:9090", "10.1.2.3:9090", "[::1]:9090", "localhost"])
async def test_by_address_a_hook_may_drain_without_a_token(
    tmp_path: Path, host: str, loopback: bool
) -> None:
    async with listening(tmp_path, Access(loopback=loopback)) as subject:
        for method, path in OLD:
            status, _ = await subject.ask(method, path, Host=host)
            assert status in (200, 202), path
        assert subject.target.drained
        for method, path in WRITE:
            status, text = await subject.ask(method, path, Host=host)
            assert (status, "control.token_file" in text) == (403, True), path
        for method, path in READ:
            status, _ = await subject.ask(method, path, Host=host)
            assert (status != 403) is loopback, path


async def test_with_a_token_all_but_the_probes_need_it_and_names_do_not_matter(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path, Access(Token(token_file(tmp_path)))) as subject:
        shown = {"Authorization": f"Bearer {TOKEN}"}
        for method, path in [*OLD[1:], *READ, *WRITE]:
            assert (await subject.ask(method, path))[0] == 401, path
            assert (await subject.ask(method, path, Authorization="Bearer no"))[0] == 401, path
        assert not subject.target.drained
        for method, path in [*OPEN, *OLD]:
            status, _ = await subject.ask(method, path, Host="breakwater.example", **shown)
            assert status in (200, 202), path
        assert subject.target.drained
