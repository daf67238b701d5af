"""The soak's own judgement: what it takes for right, wrong, lost and excused."""

from __future__ import annotations

import itertools
import time

import grpc
import numpy as np
import pytest

from loadtests.soak.subjects import Subject, subjects, unanswerable
from loadtests.soak.tally import LONGEST_S, OTHER_VERDICT, RIGHT, WRONG, Tally, Window
from loadtests.soak.traffic import PURIFYING, REFUSING, Traffic
from proxy import rpc, wire
from proxy.errors import InvalidRequest
from proxy.pb import open_inference_pb2 as pb
from proxy.status import BUSY
from proxy.validation import validate
from tests.proxy.running import Call, Recorder, recording

POOL = subjects()


def test_every_image_has_digests_of_its_own() -> None:
    digests = [d for s in POOL for d in (s.digest, s.purified)]
    assert len(set(digests)) == len(digests)
    assert {s.is_tampered for s in POOL} == {True, False}
    assert subjects() == POOL


def test_bad_input_is_bad() -> None:
    for what, message in unanswerable("m"):
        try:
            request = wire.InferRequest.parse(message)
            validate(request, non_finite="refuse")
        except InvalidRequest:
            continue
        assert what in ("out of range", "nothing", "no such input", "another datatype"), what


class Server:
    """Answers as the soak's model behind a sidecar does, but for what `twist` makes of it."""

    def __init__(self, recorder: Recorder) -> None:
        self.known = {s.pixels: s for s in POOL}
        self.twist: str = ""
        recorder.answers[rpc.INFER.name] = self.answer

    async def answer(self, call: Call, context: grpc.aio.ServicerContext) -> bytes:
        request = wire.InferRequest.parse(call.data)
        subject = self.known[bytes(request.tensors[0].payload())]
        if self.twist == "swap":
            subject = next(s for s in POOL if s is not subject)
        if self.twist == "gone":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no connection")
        acts = subject.is_tampered and self.twist != "untouched"
        if acts and request.common.model == REFUSING:
            await context.abort(grpc.StatusCode.UNAVAILABLE, BUSY)
        digest = subject.purified if acts else subject.digest
        answer = pb.ModelInferResponse(
            id="another" if self.twist == "id" else request.request_id,
            raw_output_contents=[np.array(digest, np.uint32).tobytes()],
        )
        answer.outputs.add(name="digest", datatype="UINT32", shape=(1, 2))
        return answer.SerializeToString()


CLEAN = next(s for s in POOL if not s.is_tampered)
TAMPERED = next(s for s in POOL if s.is_tampered)


@pytest.mark.parametrize(
    ("twist", "model", "subject", "got"),
    [
        ("", PURIFYING, CLEAN, "served"),
        ("", PURIFYING, TAMPERED, "purified"),
        ("", REFUSING, TAMPERED, "refused"),
        ("untouched", PURIFYING, TAMPERED, "served"),
        ("swap", PURIFYING, CLEAN, WRONG),
        ("id", PURIFYING, CLEAN, WRONG),
        ("gone", PURIFYING, CLEAN, "UNAVAILABLE"),
    ],
)
async def test_an_answer_is_told_from_every_other(
    twist: str, model: str, subject: Subject, got: str
) -> None:
    async with recording() as (recorder, address):
        Server(recorder).twist = twist
        traffic = Traffic(address, POOL, Tally())
        assert await traffic.ask(model, subject) == got
        await traffic.close()


@pytest.mark.parametrize(
    ("twist", "outcome"), [("", RIGHT), ("swap", WRONG), ("gone", "UNAVAILABLE")]
)
async def test_what_is_sent_is_counted(twist: str, outcome: str) -> None:
    async with recording() as (recorder, address):
        server = Server(recorder)
        traffic = Traffic(address, POOL[:40], Tally())
        await traffic.learn()
        server.twist = twist
        await traffic.run(2000, time.monotonic() + 0.1)
        await traffic.close()
    tally = traffic.tally
    assert tally.sent > 0
    assert tally.outside[outcome] >= 0.5 * tally.sent
    assert tally.outside.total() == tally.sent
    assert bool(tally.errors_outside) == bool(twist)


async def test_a_defence_that_lapses_is_seen() -> None:
    async with recording() as (recorder, address):
        server = Server(recorder)
        traffic = Traffic(address, POOL[:40], Tally())
        await traffic.learn()
        server.twist = "untouched"
        await traffic.run(2000, time.monotonic() + 0.1)
        await traffic.close()
    assert traffic.tally.untouched == traffic.tally.tampered > 0
    assert traffic.tally.outside[OTHER_VERDICT] > 0


async def test_a_defence_that_does_nothing_is_no_soak() -> None:
    async with recording() as (recorder, address):
        Server(recorder).twist = "untouched"
        traffic = Traffic(address, POOL, Tally())
        with pytest.raises(RuntimeError, match="tampered images were purified"):
            await traffic.learn()
        await traffic.close()


def test_only_requests_under_way_in_a_window_are_excused_and_not_for_long() -> None:
    tally = Tally(windows=[Window("a", 100.0, 104.0), Window("b", 200.0)])
    told = {
        (90.0, 99.9): False,
        (99.0, 100.1): True,  # sent before it broke, answered after
        (103.9, 120.0): True,
        (104.1, 105.0): False,
        (214.0, 214.1): True,  # not yet over
        (200.0 + LONGEST_S + 0.1, 220.0): False,  # not recovered from in time
    }
    assert {span: tally.is_excused(*span) for span in told} == told


def test_a_recovery_counts_only_what_was_sent_after_the_restart() -> None:
    tally = Tally()
    before = time.monotonic()
    tally.restart_streak()
    after = time.monotonic()
    tally.note(RIGHT, before - 1, after)
    assert tally.streak == 0
    for number in itertools.islice(itertools.count(1), 3):
        tally.note(RIGHT, after, after)
        assert tally.streak == number
    tally.note("UNAVAILABLE", after, after, "told")
    assert tally.streak == 0
    assert tally.examples == ["UNAVAILABLE: told"]
