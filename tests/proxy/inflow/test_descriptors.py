"""Descriptors are raised to what connections need; where they cannot be, there are fewer."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from loadtests.http2 import frames, opened
from proxy.inflow.descriptors import SPARE, connections_within
from tests.proxy.running import LIMIT_S, Recorder, running


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_is_raised() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    assert connections_within(700) == 700
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 700 + SPARE


def test_more_than_the_hard_limit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert connections_within(hard + 1) == hard - SPARE
    assert "ulimit -n" in caplog.text


async def test_one_connection_too_many_is_closed_at_once(recorder: tuple[Recorder, str]) -> None:
    async with (
        running(recorder[1], inflow={"max_connections": 3}) as server,
        AsyncExitStack() as stack,
    ):
        codes = []
        for _ in range(5):
            reader, _ = await stack.enter_async_context(opened(server.address))
            async with asyncio.timeout(LIMIT_S):
                codes.append(await anext(frames(reader), None) is not None)
        assert codes == [True, True, True, False, False]
