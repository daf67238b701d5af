"""The fixtures of the data plane's tests, and an enforcing sidecar to attack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.proxy.conftest import direct, opened, recorder
from tests.proxy.running import Running, running
from tuning.triton import EmbeddedTriton

__all__ = ["direct", "opened", "recorder"]

BLOCKING = {"action": "block", "on_failure": "closed", "dispatch": "sequential"}
MODELS = ("digits_like", "digits_like_nhwc_uint8", "digits_like_fp16", "encoded", "repeat")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guarded(
    triton: EmbeddedTriton, calibrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """A sidecar that blocks, before a real Triton, with all that clients may be allowed."""
    from tests.defended import settings_of  # with torch behind it

    allow = ["shared-memory", "model-repository", "model-config", "statistics"]
    async with running(
        triton.grpc_address,
        models=settings_of(calibrations, dict.fromkeys(MODELS, BLOCKING)),
        rpc={"allow": allow},
        shared_memory="inspect",
        audit={"path": tmp_path_factory.mktemp("guarded") / "audit.jsonl"},
    ) as sidecar:
        yield sidecar
