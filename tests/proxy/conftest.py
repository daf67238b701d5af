"""The session's Triton, reached directly and through sidecars."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import get_args

import grpc
import pytest_asyncio

from proxy.config import RpcGroup
from tests.proxy.running import UNBOUNDED, Recorder, Running, recording, running
from tuning.triton import EmbeddedTriton


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def direct(triton: EmbeddedTriton) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to Triton itself."""
    async with grpc.aio.insecure_channel(triton.grpc_address, options=UNBOUNDED) as channel:
        yield channel


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def front(triton: EmbeddedTriton) -> AsyncIterator[Running]:
    """A sidecar with the default policy in front of Triton."""
    async with running(triton.grpc_address) as sidecar:
        yield sidecar


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def open_front(triton: EmbeddedTriton) -> AsyncIterator[Running]:
    """A sidecar that allows every group and reads shared memory."""
    allow = list(get_args(RpcGroup))
    async with running(
        triton.grpc_address, rpc={"allow": allow}, shared_memory="inspect"
    ) as sidecar:
        yield sidecar


@pytest_asyncio.fixture(loop_scope="session")
async def recorder() -> AsyncIterator[tuple[Recorder, str]]:
    """A model server that notes what reaches it, and its address."""
    async with recording() as pair:
        yield pair
