"""The explorer over HTTP, alone and over the workers of a supervisor."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from proxy import rpc
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.records.sketch import KEY_BYTES
from proxy.server import Server
from proxy.supervisor import Supervisor, worker_socket
from tests.defended import settings_of
from tests.images import CLEAN, MIXED, request
from tests.proxy.running import Running, ask, running, until
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

MODEL = "digits_like"


@pytest.fixture
async def sidecar(triton: EmbeddedTriton, calibrations: Path) -> AsyncIterator[Running]:
    models = settings_of(calibrations, {MODEL: {"action": "flag"}, "digits_like_again": {}})
    models["identity_fp32"] = {}
    async with running(triton.grpc_address, models=models) as sidecar:
        yield sidecar


async def get(address: str, **query: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}/explore", params=query) as response,
    ):
        return response.status, json.loads(await response.text())


async def test_a_running_proxy_is_explored(sidecar: Running) -> None:
    assert (await ask(sidecar.channel, rpc.INFER.name, request(MODEL, MIXED))).data
    status, found = await get(sidecar.server.admin_address, model=MODEL, candidate='{"fpr": 0.2}')
    assert status == 200
    assert len(found["live"]["ids"]) == 4
    assert (found["current"]["fpr"], found["candidate"]["fpr"]) == (0.05, 0.2)
    status, found = await get(sidecar.server.admin_address, model=MODEL)
    assert (status, found["candidate"]) == (200, None)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "GET /explore?model=NAME"),
        ({"model": MODEL, "candidate": "{"}, "GET /explore?model=NAME"),
        ({"model": MODEL, "candidate": "[1]"}, "GET /explore?model=NAME"),
        ({"model": MODEL, "candidate": "[" * 2000}, "GET /explore?model=NAME"),
        ({"model": MODEL, "fpr": "0.1"}, "GET /explore?model=NAME"),
        ({"model": "none\x1b[2J"}, "has no detectors"),
        ({"model": "identity_fp32"}, "has no detectors"),
        ({"model": MODEL, "candidate": '{"detectors": ["lid"]}'}, "detectors must be some of"),
        ({"model": MODEL, "candidate": '{"fpr": 1}'}, "less than 1"),
        ({"model": MODEL, "candidate": '{"fpr": 0.0001}'}, "the least rate these support"),
        ({"model": MODEL, "candidate": '{"action": "block"}'}, "Extra inputs"),
    ],
)
async def test_what_cannot_be_explored_is_told(
    sidecar: Running, query: dict[str, str], text: str
) -> None:
    status, found = await get(sidecar.server.admin_address, **query)
    assert status == 400
    assert text in found["error"]


async def test_a_pass_through_has_nothing_to_explore(triton: EmbeddedTriton) -> None:
    async with running(triton.grpc_address) as sidecar:
        with pytest.raises(ConfigError, match="no model has detectors"):
            await sidecar.server.explore(MODEL, None)


async def test_another_configuration_is_explored_from_then_on(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    path = tmp_path / "main.yaml"

    def write(fpr: float) -> None:
        models = settings_of(calibrations, {MODEL: {"action": "flag", "fpr": fpr}})
        path.write_text(json.dumps({"models": models}, default=str))

    write(0.05)
    async with running(triton.grpc_address, path=path) as sidecar:
        first = await sidecar.server.explore(MODEL, None)
        write(0.1)
        assert await sidecar.server.reload()
        second = await sidecar.server.explore(MODEL, None)
    assert (first["current"]["fpr"], second["current"]["fpr"]) == (0.05, 0.1)
    assert first["thresholds"] == second["thresholds"]


async def test_workers_are_explored_as_one(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    models = settings_of(calibrations, {MODEL: {"action": "flag"}})
    settings = {"upstream": triton.grpc_address, "listen": "127.0.0.1:0", "models": models}
    config, key = Config.model_validate(settings), os.urandom(KEY_BYTES)
    (tmp_path / "metrics").mkdir()
    supervisor = Supervisor(("true",), config, 3, tmp_path, 0.001)  # whose third worker is dead
    with pytest.raises(ConfigError, match="no worker answers"):
        await supervisor.explore(MODEL, None)
    async with AsyncExitStack() as stack:
        for index, x in enumerate((MIXED, CLEAN)):
            server = Server(config, admin=worker_socket(tmp_path, index), records_key=key)
            await server.start()
            stack.push_async_callback(server.stop, grace_s=0)
            async with grpc.aio.insecure_channel(server.address) as channel:
                assert (await ask(channel, rpc.INFER.name, request(MODEL, x))).data

            async def is_kept(server: Server = server, count: int = len(x)) -> bool:
                return (await server.scores(MODEL))["kept"] == count

            await until(is_kept)
        kept = (await supervisor.scores(MODEL))["columns"]["id"]
        found = await supervisor.explore(MODEL, {"fpr": 0.2})
        assert sorted(found["live"]["ids"]) == sorted(kept)
        assert found["live"]["seen"] == len(MIXED) + len(CLEAN)
        assert len(found["candidate"]["live"]["fused"]) == len(kept)
        with pytest.raises(ConfigError, match="detectors must be some of"):
            await supervisor.explore(MODEL, {"detectors": ["lid"]})
