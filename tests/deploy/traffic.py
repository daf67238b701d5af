"""Traffic through a defended sidecar that moves every metric: what is benign, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.query_attacks.redis_server import RedisServer
from proxy.pb import open_inference_pb2 as pb
from tests.builders import infer_request
from tests.defended import settings_of
from tests.images import CLEAN, MIXED, benign, request, tampered
from tests.moody import marked
from tests.proxy.running import Reply, Running, ask, running

SUBJECT = "digits_like_nhwc_uint8"
BREAKING = "digits_like"

MODELS: Mapping[str, Mapping[str, Any]] = {
    SUBJECT: {
        "action": "purify",
        # Copies are answered from several of them only where they differ.
        "purifiers": ({"name": "noise"}, {"name": "median", "params": {"size": 3}}),
        "aggregate": {"copies": 2},
        "drift": {"windows": {"count": 200, "minutes": 1}},
        "max_waste": 1.0,
    },
    "digits_like_probabilities": {"action": "block", "max_waste": 1.0},
    # Nothing is judged in a millionth of a second: what is refused for want of time is passed.
    "digits_like_fp16": {"budget_ms": 0.001},
    "digits_like_again": {"query_attacks": {"fpr": 0.05, "action": "flag"}, "fpr": 0.02},
}
"""The defended models but the one whose detector breaks: fields not as in `tests.defended`."""

PRINCIPAL = "x-user"
_SEARCHER = ((PRINCIPAL, "searcher"),)


@dataclass
class Scene:
    """A sidecar whose every metric moves when `round` is called often enough."""

    sidecar: Running
    redis: RedisServer
    path: Path
    """Its configuration file."""
    _rounds: int = 0

    async def round(self) -> None:
        """Some of every kind of traffic, all at once."""
        self._rounds += 1
        seed = 100 * self._rounds
        async with asyncio.TaskGroup() as group:
            for each in (
                *self._digits(seed),
                *(request("digits_like_probabilities", x[None]) for x in MIXED),
                request("digits_like_fp16", CLEAN[:1]),
                *self._unscored(),
            ):
                group.create_task(self._infer(each))
            group.create_task(ask(self.sidecar.channel, "RepositoryIndex", b""))
            group.create_task(self._search(seed))

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Requests are in progress all the time, in memory that Triton shares."""
        stop = asyncio.Event()

        async def one() -> None:
            while not stop.is_set():
                await self._infer(self._slow())

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(one())
            try:
                yield
            finally:
                stop.set()

    async def break_detector(self, passes: int = 8) -> None:
        """Send what a detector fails on, until it is left out."""
        for _ in range(passes):
            await self._infer(request(BREAKING, marked(1)))

    async def reload(self) -> None:
        """Put the same configuration into force again, and then something that is none."""
        text = self.path.read_text()
        assert await self.sidecar.server.reload()
        self.path.write_text("models: nonsense")
        assert not await self.sidecar.server.reload()
        self.path.write_text(text)

    def _digits(self, seed: int) -> list[pb.ModelInferRequest]:
        x = benign(24, seed=seed)
        return [
            *(request(SUBJECT, each[None]) for each in x[:16]),
            *(request(SUBJECT, tampered(each[None])) for each in x[16:18]),
            request(SUBJECT, x[18:]),
        ]

    def _unscored(self) -> list[pb.ModelInferRequest]:
        failing = infer_request({"image": CLEAN[:1]}, model="failing", request_id="f")
        return [self._slow(), failing]

    @staticmethod
    def _slow() -> pb.ModelInferRequest:
        return infer_request(
            {"image": CLEAN[:1]}, model="slow", request_id="s", parameters={"delay_ms": 800}
        )

    async def _search(self, seed: int) -> None:
        near, far = benign(2, seed=seed)
        for _ in range(6):
            middle: NDArray[np.float32] = (near + far) / 2
            await self._infer(request("digits_like_again", middle[None]), metadata=_SEARCHER)
            far = middle

    async def _infer(self, message: pb.ModelInferRequest, **options: Any) -> Reply:
        return await ask(self.sidecar.channel, "ModelInfer", message, **options)


def _document(
    calibrations: Path, folder: Path, moody: Mapping[str, Any], redis: RedisServer
) -> dict[str, Any]:
    models = settings_of(calibrations, MODELS)
    second = settings_of(calibrations, {SUBJECT: {"fpr": 0.9}})
    (folder / "second.yaml").write_text(json.dumps({"models": second}, default=str))
    (folder / "history.key").write_bytes(bytes(range(32)))
    models[SUBJECT]["shadow"] = {"policy": "second.yaml"}
    models |= settings_of(calibrations, {BREAKING: moody})
    return {
        "models": models,
        "history": {
            "key_file": "history.key",
            "shared": {"url": redis.url, "timeout_ms": 1_000},
        },
        "principal_header": PRINCIPAL,
        "upstream_shared_memory": "system",
        "upstream_shared_memory_from_kb": 0,
    }


@contextlib.asynccontextmanager
async def scene(
    upstream: str, calibrations: Path, folder: Path, moody: Mapping[str, Any]
) -> AsyncIterator[Scene]:
    """A sidecar in front of Triton with a shared history, a shadow and a detector that breaks.

    Args:
        upstream: the real Triton with tests/models.
        calibrations: as the fixture of that name.
        folder: for everything that is written.
        moody: as the fixture of that name in tests/proxy.
    """
    with RedisServer(folder) as redis:
        path = folder / "breakwater.yaml"
        document = _document(calibrations, folder, moody, redis)
        path.write_text(json.dumps(document, default=str))
        async with running(upstream, path=path) as sidecar:
            yield Scene(sidecar, redis, path)
