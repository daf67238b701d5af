"""Requests and responses by the protocol's grammar, with the liberties that its encoding allows."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.fuzz.inputs import OF_TENSORS, TensorGrammar
from loadtests.fuzz.values import TYPES

_ODDNESS = (0.0, 0.0, 0.02, 0.05, 0.15, 0.5)
_PARAMETERS = (
    *(b"sequence_id", b"sequence_start", b"sequence_end", b"priority", b"timeout"),
    *(b"binary_data_output", b"headers", b"custom", b"triton_enable_empty_final_response"),
    *(b"triton_x", b"binary_data_size"),
)


@dataclass
class Vocabulary:
    """What requests are about: models and their inputs."""

    models: Sequence[bytes] = (b"m", b"all_types", b"Model-1.x", b"a" * 255)
    inputs: Sequence[tuple[bytes, str]] = tuple(
        (name, datatype) for datatype in TYPES for name in (b"x", b"y", b"IN_" + datatype.encode())
    )
    outputs: Sequence[bytes] = (b"o", b"OUT_FP32")
    ranks: Sequence[int] = (0, 1, 1, 1, 2, 2, 3, 4)


class Grammar(TensorGrammar):
    """Makes messages.

    Args:
        rng: decides everything: equal seeds give equal messages.
        words: names in them.
    """

    def __init__(self, rng: random.Random, words: Vocabulary | None = None) -> None:
        super().__init__(rng)
        self._words = words or Vocabulary()

    def request(self) -> bytes:
        """A ModelInferRequest, in one of several degrees of oddness."""
        rng, words = self.rng, self._words
        self.oddness = rng.choice(_ODDNESS)
        form = rng.choice(("raw", "raw", "raw", "typed"))
        chosen = rng.sample(words.inputs, rng.choice((1, 1, 1, 2, 2, 3, 0)))
        if not self.odd(0.5):  # a name twice is refused
            chosen = list({name: (name, datatype) for name, datatype in chosen}.values())
        inputs, raws = [], []
        for name, datatype in chosen:
            item, raw = self.tensor(name, datatype, form, words.ranks)
            inputs.append(item)
            if raw is not None:
                raws.append(raw)
        if self.odd(0.2):
            raws.append(rng.randbytes(rng.randrange(9)))
        if raws and self.odd(0.2):
            raws.pop(rng.randrange(len(raws)))
        outputs = [self._output() for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        parameters = [self.parameter(_PARAMETERS) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        return self.ordered(
            [
                self.texts(1, rng.choice(words.models)),
                self.texts(2, b"1") if rng.random() < 0.2 else [],
                self.texts(3, b"id-%d" % rng.randrange(9)) if rng.random() < 0.5 else [],
                [self.field(4, entry) for entry in parameters],
                [self.field(5, item) for item in inputs],
                [self.field(6, output) for output in outputs],
                [self.field(7, raw) for raw in raws],
                [self.unknown() for _ in range(2) if self.odd(0.3)],
            ]
        )

    def response(self) -> bytes:
        """A ModelInferResponse: outputs have the fields of inputs."""
        rng = self.rng
        self.oddness = rng.choice(_ODDNESS)
        outputs, raws = [], []
        for _ in range(rng.choice((0, 1, 1, 2))):
            name, datatype = rng.choice(self._words.inputs)
            item, raw = self.tensor(
                name, datatype, rng.choice(("raw", "raw", "typed")), self._words.ranks
            )
            outputs.append(item)
            raws += [] if raw is None else [raw]
        return self.ordered(
            [
                self.texts(1, b"m"),
                self.texts(3, b"id") if rng.random() < 0.5 else [],
                [self.field(4, self.parameter(_PARAMETERS))] if rng.random() < 0.2 else [],
                [self.field(5, item) for item in outputs],
                [self.field(6, raw) for raw in raws],
                [self.unknown()] if self.odd(0.3) else [],
            ]
        )

    def streamed(self) -> bytes:
        """A ModelStreamInferResponse, its answer sometimes in several parts."""
        parts = [self.field(2, self.response()) for _ in range(self.rng.choice((0, 1, 1, 1, 2)))]
        error = self.texts(1, b"an error") if self.rng.random() < 0.3 else []
        return self.ordered([error, parts, [self.unknown()] if self.odd(0.3) else []])

    def _output(self) -> bytes:
        parts = [self.field(1, self.rng.choice(self._words.outputs))]
        if self.rng.random() < 0.3:
            parts.append(self.field(2, self.parameter(OF_TENSORS)))
        return b"".join(parts)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The message with a few bytes changed, cut, doubled, inserted or taken away."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0:
                del out[at:]
            case 1 if at < len(out):
                out[at] = rng.randrange(256)
            case 2 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 3:
                out[at:at] = rng.choice((b"\x80", b"\xff" * 5, b"\0", struct.pack("<I", at)))
            case 4:
                out[at:at] = out[at : at + rng.randrange(24)]
            case _:
                del out[at : at + rng.randrange(1, 5)]
    return bytes(out)
