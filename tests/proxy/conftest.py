"""The session's Triton, reached directly and through sidecars."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import grpc
import pytest
import pytest_asyncio

from proxy.config import RpcGroup
from tests.proxy.running import UNBOUNDED, Recorder, Running, recording, running
from tuning.triton import EmbeddedTriton

if TYPE_CHECKING:
    from tests.defended import Defended, Opener


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def direct(triton: EmbeddedTriton) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to Triton itself."""
    async with grpc.aio.insecure_channel(triton.grpc_address, options=UNBOUNDED) as channel:
        yield channel


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def front(triton: EmbeddedTriton) -> AsyncIterator[Running]:
    """A sidecar with the default policy in front of Triton."""
    async with running(triton.grpc_address, non_finite="refuse") as sidecar:
        yield sidecar


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def open_front(triton: EmbeddedTriton) -> AsyncIterator[Running]:
    """A sidecar that allows every group and reads shared memory."""
    allow = list(get_args(RpcGroup))
    async with running(
        triton.grpc_address,
        rpc={"allow": allow},
        shared_memory="inspect",
        non_finite="refuse",
    ) as sidecar:
        yield sidecar


@pytest_asyncio.fixture(loop_scope="session")
async def recorder() -> AsyncIterator[tuple[Recorder, str]]:
    """A model server that notes what reaches it, and its address."""
    async with recording() as pair:
        yield pair


@pytest.fixture
def opened(triton: EmbeddedTriton, calibrations: Path, tmp_path: Path) -> Opener:
    """Opens a pipeline for models by name, with the fields that differ from `tests.defended`."""
    from tests.defended import defended  # with torch behind it, and only some tests need it

    def opener(
        models: Mapping[str, Mapping[str, Any]], **settings: Any
    ) -> AbstractAsyncContextManager[Defended]:
        return defended(triton.grpc_address, calibrations, tmp_path, models, **settings)

    return opener


@pytest.fixture(scope="module")
def moody(
    triton: EmbeddedTriton, calibrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Fields of digits_like that defend it with a detector that fails when told to."""
    from tests.moody import registered

    folder = tmp_path_factory.mktemp("moody") / "digits_like"
    with registered(triton.grpc_address, calibrations / "benign.npz", folder) as fields:
        yield fields
