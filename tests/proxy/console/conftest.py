"""A browser for the session, and consoles with and without a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.proxy.console.shown import CHROMIUM, TOKEN, Shown, browsing, showing

INSTALLED = Path(CHROMIUM).exists()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The session's Chromium; tests are skipped where there is none."""
    if not INSTALLED:
        pytest.skip(f"no browser at {CHROMIUM}")
    async with browsing() as started:
        yield started


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@pytest_asyncio.fixture(loop_scope="session")
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    """Open for reading, as on loopback without a token; nothing can be changed."""
    async with showing(tmp_path) as console:
        yield console


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(tmp_path: Path, token_file: Path) -> AsyncIterator[Shown]:
    """Everything needs the token."""
    async with showing(tmp_path, token_file) as console:
        yield console
