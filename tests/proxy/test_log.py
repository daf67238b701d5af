"""What clients can cause at will is not told as errors."""

from __future__ import annotations

import logging

import grpc
import pytest

from loadtests.http2 import call, opened
from proxy import log
from tests.builders import infer_request
from tests.images import CLEAN
from tests.proxy.running import Recorder, running, until


async def test_a_client_that_leaves_before_its_answer_is_no_error(
    recorder: tuple[Recorder, str], caplog: pytest.LogCaptureFixture
) -> None:
    log.set_up("info")

    async def large(_: object, context: grpc.aio.ServicerContext) -> bytes:
        return b"y" * 1_000_000

    async with running(recorder[1]) as server:
        recorder[0].answers["ModelInfer"] = large
        untaken = server.server._untaken
        message = infer_request({"image": CLEAN}, model="m").SerializeToString()

        async def is_waiting(wanted: bool) -> bool:
            return (untaken.bytes > 0) is wanted

        async with opened(server.address, window=0) as (_, to):
            to.write(call(1, message))
            await until(lambda: is_waiting(True))
        await until(lambda: is_waiting(False))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_other_words_of_grpc_are_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    log.set_up("info")
    logging.getLogger("grpc._cython.cygrpc").error("something else")
    assert "something else" in caplog.text
