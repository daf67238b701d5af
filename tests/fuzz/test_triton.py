"""What Triton computed on is what was inspected: the corpus and some random messages."""

from __future__ import annotations

import random
from pathlib import Path

import grpc
import pytest

from loadtests.fuzz.server import judge, messages
from loadtests.fuzz.tally import Tally
from tests.proxy.running import ask, running
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton
CORPUS = sorted((Path(__file__).parent / "corpus").glob("request-*.bin"))


async def test_triton_computes_on_what_was_inspected(triton: EmbeddedTriton) -> None:
    source = messages(random.Random(8))
    cases = [file.read_bytes() for file in CORPUS] + [next(source) for _ in range(300)]
    tally, through = Tally(), 0
    async with (
        running(triton.grpc_address) as sidecar,
        grpc.aio.insecure_channel(triton.grpc_address) as straight,
    ):
        for data in cases:
            direct = await _ask(straight, data)
            proxied = await _ask(sidecar.channel, data)
            judge(data, direct, proxied, tally)
            through += proxied is not None
    assert tally.examples == []
    assert through > 80


async def _ask(channel: grpc.aio.Channel, data: bytes) -> bytes | None:
    reply = await ask(channel, "ModelInfer", data)
    return reply.data if reply.code is grpc.StatusCode.OK else None
