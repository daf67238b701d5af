"""What is fuzzed: each target makes cases from a seed and holds them to a reference."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from loadtests.fuzz import editing, pixels, reading
from loadtests.fuzz.encoding import varint
from loadtests.fuzz.grammar import Grammar, damaged
from loadtests.fuzz.reading import Difference, same
from loadtests.fuzz.regions import Memory
from loadtests.fuzz.tally import Tally, measured
from loadtests.fuzz.values import elements, framed, taken_apart
from proxy.datatypes import frame_strings, strings
from proxy.errors import ProxyError
from proxy.reader import Reader
from proxy.wire import InferRequest

_VARIANTS = 8
"""Requests that share a head, or damaged copies, made from one message."""


def requests(rng: random.Random, tally: Tally) -> Iterator[None]:
    """Messages by the grammar, read whole."""
    grammar = Grammar(rng)
    while True:
        data = grammar.request()
        policy = "refuse" if rng.random() < 0.3 else "pass"
        tally.attempt(data, lambda: reading.check_request(data, policy))  # noqa: B023 (called here)
        yield


def damaged_requests(rng: random.Random, tally: Tally) -> Iterator[None]:
    """The same with bytes changed, whatever they mean."""
    grammar = Grammar(rng)
    while True:
        whole = grammar.request()
        for _ in range(_VARIANTS):
            data = damaged(rng, whole)
            tally.attempt(data, lambda: reading.check_request(data))  # noqa: B023
            yield


def edits(rng: random.Random, tally: Tally) -> Iterator[None]:
    """Accepted requests with new values, moved to shared memory, and asked about."""
    grammar = Grammar(rng)
    while True:
        data = grammar.request()
        try:
            request = reading.read_request(data, "pass")
        except ProxyError:
            continue
        for _ in range(3):
            tally.attempt(data, lambda: editing.check_replaced(rng, request))  # noqa: B023
            yield
        tally.attempt(data, lambda: editing.check_moved(rng, request))  # noqa: B023
        tally.attempt(data, lambda: editing.check_built(rng, request))  # noqa: B023
        yield


def known_heads(rng: random.Random, tally: Tally) -> Iterator[None]:
    """One reader's memory of heads against a reading without memory."""
    grammar, reader = Grammar(rng), Reader()
    while True:
        first = grammar.request()
        for data in (first, *(_other_values(rng, first) for _ in range(_VARIANTS))):
            policy = "refuse" if rng.random() < 0.5 else "pass"
            tally.attempt(data, lambda: _check_known(reader, data, policy))  # noqa: B023
            yield


def _other_values(rng: random.Random, data: bytes) -> bytes:
    """The message with other values, another id, or a raw entry too many or too few."""
    try:
        request = InferRequest.parse(data)
    except ProxyError:
        return damaged(rng, data)
    if request.pieces and rng.random() < 0.7:
        piece = rng.choice(request.pieces)
        size = piece.end - piece.start
        return data[: piece.start] + rng.randbytes(size) + data[piece.end :]
    name = rng.choice((b"", b"other", b"\xff"))
    extra = rng.choice((varint(3 << 3 | 2) + varint(len(name)) + name, b"\x3a\x00", b"\x3a\x01a"))
    return extra + data if rng.random() < 0.5 else data + extra


def _check_known(reader: Reader, data: bytes, policy: str) -> None:
    outcomes: list[object] = []
    refusal: ProxyError | None = None
    for fresh in (True, False):
        try:
            if fresh:
                request = reading.read_request(data, policy)
            else:
                request, known = reader.read(data)
                reader.validate(request, known=known, non_finite=policy)
            values = [None if t.shared_memory else bytes(t.payload()) for t in request.tensors]
            outcomes.append((request.request_id, request.common.data, values))
        except ProxyError as error:
            refusal = error
            outcomes.append(str(error))
    same("with memory of heads", outcomes[1], outcomes[0])
    if refusal is not None:
        raise refusal


def answers(rng: random.Random, tally: Tally) -> Iterator[None]:
    """Answers, some damaged, read whole and with new values."""
    grammar = Grammar(rng)
    while True:
        data = grammar.response()
        data = damaged(rng, data) if rng.random() < 0.3 else data
        response = tally.attempt(data, lambda: reading.check_response(data))  # noqa: B023
        yield
        if response is not None:
            tally.attempt(data, lambda: editing.check_output_replaced(rng, response))  # noqa: B023
            yield


def streams(rng: random.Random, tally: Tally) -> Iterator[None]:
    """Answers of streams, some in several parts, some damaged."""
    grammar = Grammar(rng)
    while True:
        whole = grammar.streamed()
        for data in (whole, damaged(rng, whole)):
            tally.attempt(data, lambda: reading.check_streamed(data))  # noqa: B023
            yield


def text_framing(rng: random.Random, tally: Tally) -> Iterator[None]:
    """BYTES tensors, honest and lying about their lengths."""
    while True:
        items = elements(rng, rng.randrange(5))
        data = framed(items)
        data = data if rng.random() < 0.3 else damaged(rng, data)
        tally.attempt(data, lambda: _check_framing(data))  # noqa: B023
        yield


def _check_framing(data: bytes) -> None:
    found = strings(memoryview(data))
    if sum(4 + len(item) for item in found) != len(data):
        raise Difference("accepted with bytes that belong to no element")
    same("elements", found, taken_apart(data))
    same("framed again", frame_strings(found), data)


def codecs(rng: random.Random, tally: Tally) -> Iterator[None]:
    """Tensors as detectors see them."""
    while True:
        tally.attempt(*pixels.case(rng))
        yield


def files(rng: random.Random, tally: Tally) -> Iterator[None]:
    """Image files."""
    while True:
        tally.attempt(*pixels.file_case(rng))
        yield


def memory(rng: random.Random, tally: Tally) -> Iterator[None]:
    """References to shared memory."""
    shared = Memory()
    try:
        while True:
            tally.attempt(*shared.case(rng))
            yield
    finally:
        shared.close()


@dataclass(frozen=True)
class Target:
    """One of them, and its share of all cases."""

    run: Callable[[random.Random, Tally], Iterator[None]]
    share: float


TARGETS: Mapping[str, Target] = {
    "requests": Target(requests, 0.16),
    "damaged requests": Target(damaged_requests, 0.33),
    "edits": Target(edits, 0.1),
    "known heads": Target(known_heads, 0.1),
    "answers": Target(answers, 0.1),
    "streams": Target(streams, 0.06),
    "BYTES framing": Target(text_framing, 0.08),
    "pixels": Target(codecs, 0.04),
    "image files": Target(files, 0.01),
    "shared memory": Target(memory, 0.02),
}


def fuzz(name: str, seed: int, cases: int) -> Tally:
    """Run so many cases of one target; the same seed makes the same ones."""
    tally = Tally()
    run = TARGETS[name].run(random.Random(f"{name} {seed}"), tally)
    with measured(tally):
        while tally.cases < cases:
            next(run)
    run.close()
    return tally
