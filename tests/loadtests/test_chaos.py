"""The judge of `loadtests.chaos`: what it must catch, caught; and a wire that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from loadtests.chaos.ledger import (
    LATE,
    PURIFIED,
    REFUSED,
    SERVED,
    STEADY_S,
    STREAK,
    SWAPPED,
    UNREADABLE,
    Ledger,
    Outcome,
)
from loadtests.chaos.liar import LIES
from loadtests.chaos.relay import GARBAGE, Mood, Relay
from loadtests.chaos.traffic import Images, whose
from loadtests.soak.subjects import digest_of
from proxy.pb import open_inference_pb2 as pb

SENT, CLEANED = (1, 2), (3, 4)


def answer(name: str, digest: tuple[int, ...]) -> bytes:
    message = pb.ModelInferResponse(model_name="m", id=name)
    message.outputs.add(name="digest", datatype="UINT32", shape=[1, len(digest)])
    body = np.array(digest, "<u4").tobytes()
    return message.SerializeToString() + b"\x32" + bytes([len(body)]) + body


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (answer("mine", SENT), SERVED),
        (answer("mine", CLEANED), PURIFIED),
        (answer("mine", (5, 6)), SWAPPED),
        (answer("another", SENT), SWAPPED),
        (answer("", SENT), UNREADABLE),
        (answer("mine", (1,)), UNREADABLE),
        (answer("mine", SENT)[:-3], UNREADABLE),
        (b"", UNREADABLE),
        (GARBAGE, UNREADABLE),
    ],
)
def test_whose_an_answer_is(data: bytes, told: str) -> None:
    assert whose(data, "mine", SENT, CLEANED) == told


def test_every_lie_is_told_from_the_truth() -> None:
    right, before = answer("mine", SENT), answer("another", CLEANED)
    for name, lie in LIES.items():
        if name != "too large":
            assert lie(right, before) != right, name
    assert whose(LIES["swapped"](right, before), "mine", SENT, CLEANED) == SWAPPED


def test_no_two_inputs_are_alike_purified_or_not() -> None:
    images = Images()
    made = [images.make(tampered=bool(i % 2)) for i in range(300)]
    assert len({digest_of(x) for x in made}) == 300
    assert len({digest_of(images.purified(x)) for x in made[1::2]}) == 150
    assert all(((x >= 0) & (x <= 1)).all() for x in made)


def counted(*outcomes: Outcome, asked: int | None = None, **ledger: object) -> Ledger:
    made = Ledger(begun_s=10.0, healed_s=20.0, **ledger)  # type: ignore[arg-type]
    made.asked = len(outcomes) if asked is None else asked
    for outcome in outcomes:
        made.note(outcome)
    return made


def clean(told: str, sent_s: float = 12.0, done_s: float = 13.0) -> Outcome:
    return Outcome(told, sent_s, done_s)


def tampered(told: str, *, closed: bool, sent_s: float = 12.0) -> Outcome:
    return Outcome(told, sent_s, sent_s + 1, tampered=True, closed=closed)


def test_a_lost_answer_is_caught() -> None:
    assert counted(clean(SERVED), asked=2).lost == 1
    assert counted(clean("UNAVAILABLE")).lost == 1, "nothing excuses it"
    excused = counted(clean("UNAVAILABLE"), tolerated=frozenset({"UNAVAILABLE"}))
    assert excused.lost == 0
    early = clean("UNAVAILABLE", sent_s=5.0, done_s=6.0)
    assert counted(early, tolerated=frozenset({"UNAVAILABLE"})).lost == 1, "before the fault"


@pytest.mark.parametrize("told", [REFUSED, PURIFIED, UNREADABLE, "INTERNAL"])
def test_a_clean_input_is_to_be_served(told: str) -> None:
    assert counted(clean(told)).lost == 1


def test_a_swapped_answer_is_caught_whatever_is_tolerated() -> None:
    ledger = counted(clean(SWAPPED), tolerated=frozenset({SWAPPED}), suspends=True)
    assert (ledger.swapped, ledger.lost) == (1, 0)


def test_a_request_that_outlives_its_deadline_is_a_hang() -> None:
    assert counted(clean(LATE)).hung == 1


def test_a_bypass_is_caught_unless_the_promise_says_open() -> None:
    assert counted(tampered(SERVED, closed=False)).bypasses == 1
    assert counted(tampered(SERVED, closed=True), suspends=True).bypasses == 1
    passed = counted(tampered(SERVED, closed=False), suspends=True)
    assert (passed.bypasses, passed.opened, passed.lost) == (0, 1, 0)
    before = counted(tampered(SERVED, closed=False, sent_s=1.0), suspends=True)
    assert (before.bypasses, before.opened) == (1, 0)
    assert counted(tampered(PURIFIED, closed=False), tampered(REFUSED, closed=True)).bypasses == 0


def test_a_recovery_is_a_streak_that_lasts() -> None:
    step_s = STEADY_S / STREAK
    right = [clean(SERVED, 20 + i * step_s, 20.5 + i * step_s) for i in range(3 * STREAK)]
    assert counted(*right[:STREAK]).recovery_s is None, "too soon to tell"
    assert counted(*right).recovery_s == pytest.approx(0.5)
    relapsed = counted(*right[:5], clean("UNAVAILABLE", 21.0, 21.1), *right[5:])
    assert relapsed.recovery_s == pytest.approx(0.5 + 5 * step_s)
    assert counted(clean(SERVED, 19.0, 21.0)).recovery_s is None


# -- the wire ----------------------------------------------------------------------------------


@pytest.fixture
async def wire() -> AsyncIterator[Relay]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Relay(server.sockets[0].getsockname()[:2]) as relay:
        yield relay
    server.close()


async def said(wire: Relay, word: bytes = b"hello") -> bytes:
    """What comes back; empty where the connection is reset."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(word)
        return await reader.read(100)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_wire_follows_its_mood(wire: Relay) -> None:
    assert await said(wire) == b"hello"
    wire.set(Mood(babbles=True))
    assert await said(wire) == GARBAGE[:100]
    wire.set(Mood(refuses=True))
    assert await said(wire) == b""
    wire.set(Mood(cuts_after=3))
    assert await said(wire) in (b"", b"he")
    wire.set(Mood(holds=True))
    waiting = asyncio.ensure_future(said(wire))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    wire.set(Mood())
    assert await waiting == b"hello"


async def test_a_forgotten_connection_stays_dead_and_new_ones_work(wire: Relay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    writer.write(b"a")
    assert await reader.read(1) == b"a"
    wire.freeze()
    writer.write(b"b")
    assert await said(wire) == b"hello"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read(1)
    writer.close()
