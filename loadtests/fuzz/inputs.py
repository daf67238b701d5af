"""Tensors of a message by the protocol's grammar: names, shapes, parameters and values."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.fuzz.encoding import Encoder
from loadtests.fuzz.values import SIZES, TYPED, numbers, payload, taken_apart

_DIMENSIONS = (0, 1, 1, 2, 2, 3, 4)
_WRONG_DIMENSIONS = (-1, -(2**63), 2**31, 2**32, 2**61, 2**62, 2**63 - 1)
BAD_TEXT = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"a\0b", b"\xf4\x90\x80\x80", b"")
OF_TENSORS = (
    *(b"shared_memory_region", b"shared_memory_byte_size", b"shared_memory_offset"),
    *(b"classification", b"binary_data", b"content_type", b"custom"),
)


class TensorGrammar(Encoder):
    """Makes the parts of a message that are about one tensor."""

    def parameter(self, keys: Sequence[bytes]) -> bytes:
        """An entry of a map of parameters: key or value missing, doubled, turned round, or more."""
        rng = self.rng
        key, value = self.field(1, rng.choice(keys)), self.field(2, self._choice())
        if not self.odd(1.5):
            return key + value
        more = self.field(2, self._choice())
        return rng.choice(
            (
                *(key, value, b"", value + key, key + value + more, key + more + key + value),
                *(key + value + self.unknown(), self.unknown() + key + value),
                *(key + value + self.stray(3), self.stray(1) + value, key + self.stray(2)),
            )
        )

    def _choice(self) -> bytes:
        """A value of a parameter; sometimes its oneof is set twice, or not at all."""
        rng = self.rng
        choices = [
            lambda: self.scalar(1, rng.randrange(2)),
            lambda: self.scalar(2, rng.choice((0, 1, 4, 16, 2**40, -1, -(2**63)))),
            lambda: self.field(3, rng.choice((b"r", b"region", b"text", *BAD_TEXT))),
            lambda: self.double(4, rng.choice((0.0, -0.0, 1.5, float("nan")))),
            lambda: self.scalar(5, rng.choice((0, 7, 2**63, 2**64 - 1))),
        ]
        count = 1 if not self.odd(0.5) else rng.choice((0, 2, 3))
        return b"".join(rng.choice(choices)() for _ in range(count))

    def tensor(
        self, name: bytes, datatype: str, form: str, ranks: Sequence[int]
    ) -> tuple[bytes, bytes | None]:
        """An input and its raw entry, if it has one."""
        rng = self.rng
        shape = [rng.choice(_DIMENSIONS) for _ in range(rng.choice(ranks))]
        count = 1
        for size in shape:
            count *= size
        raw = payload(rng, datatype, count, 0.15)
        shape = self._strange(shape)
        if self.odd(0.2):
            raw = raw[:-1] if raw and rng.random() < 0.5 else raw + b"\0"
        shared = rng.random() < 0.06
        parts = [self.texts(1, name), self.texts(2, datatype.encode()), self.shape(shape)]
        if shared:
            parts.append(self._shared(len(raw)))
        if self.odd(0.3):
            parts.append([self.field(4, self.parameter(OF_TENSORS))])
        typed = form == "typed" and datatype in TYPED
        if (typed and not shared) or self.odd(0.1):
            kind = datatype if datatype in TYPED and not self.odd(0.1) else "INT32"
            parts.append(self.contents(kind, raw if kind == datatype else bytes(4)))
        parts.append([self.unknown()] if self.odd(0.2) else [])
        return self.ordered(parts), None if typed or shared else raw

    def _strange(self, shape: list[int]) -> list[int]:
        if not self.odd(0.3):
            return shape
        rng = self.rng
        match rng.randrange(4):
            case 0:
                return [*shape, rng.choice(_WRONG_DIMENSIONS)]
            case 1:
                return shape + [1] * rng.choice((28, 32, 33, 300))
            case 2:
                return [rng.choice(_WRONG_DIMENSIONS) for _ in range(3)]
            case _:
                return [*reversed(shape), rng.choice(_DIMENSIONS)]

    def shape(self, shape: Sequence[int]) -> list[bytes]:
        """The dimensions packed, unpacked, or some each."""
        split = self.rng.choice((0, len(shape), self.rng.randint(0, len(shape))))
        packed = b"".join([self.number(size) for size in shape[:split]])
        return [
            *([self.field(3, packed)] if packed or self.odd(0.2) else []),
            *(self.scalar(3, size) for size in shape[split:]),
        ]

    def contents(self, datatype: str, raw: bytes) -> list[bytes]:
        """Typed values, in one part or in several that are to be merged."""
        number = TYPED[datatype]
        if datatype == "BYTES":
            items = [self.field(number, item) for item in taken_apart(raw)]
        elif datatype in ("FP32", "FP64"):
            size, wire = SIZES[datatype], 5 if datatype == "FP32" else 1
            items = [raw[i : i + size] for i in range(0, len(raw) // size * size, size)]
            if self.rng.random() < 0.3:
                items = [self.tag(number, wire) + item for item in items]
            else:
                items = [self.field(number, b"".join(items))]
        else:
            values = numbers(datatype, raw[: len(raw) // SIZES[datatype] * SIZES[datatype]])
            if self.odd(0.2):
                values += [2**31 - 1, -(2**31), 300][: self.rng.randrange(4)]
            if self.rng.random() < 0.3:
                items = [self.scalar(number, int(value)) for value in values]
            else:
                items = [self.field(number, b"".join([self.number(int(v)) for v in values]))]
        if self.odd(0.2):
            items.append(self.unknown() if self.rng.random() < 0.5 else self.stray(number))
        split = len(items) if not self.odd(0.5) else self.rng.randint(0, len(items))
        parts = [self.field(5, b"".join(items[:split]))]
        return parts if split == len(items) else [*parts, self.field(5, b"".join(items[split:]))]

    def _shared(self, size: int) -> list[bytes]:
        """Parameters that put a tensor in shared memory, not always all of them."""
        entries = [
            (b"shared_memory_region", self.field(3, self.rng.choice((b"r", b"r", b"s", b"")))),
            (b"shared_memory_byte_size", self.scalar(2, size)),
            (b"shared_memory_offset", self.scalar(2, self.rng.choice((0, 4, -1, 2**62)))),
        ]
        return [
            self.field(4, self.field(1, key) + self.field(2, value))
            for key, value in entries
            if not self.odd(0.3) and (key != b"shared_memory_offset" or self.rng.random() < 0.5)
        ]

    def texts(self, number: int, text: bytes) -> list[bytes]:
        """A string; sometimes several, of which the last counts, or none, or no text at all."""
        if not self.odd(0.3):
            return [self.field(number, text)]
        other = self.rng.choice((*BAD_TEXT, b"other", b"../x", b"FP32", b"INT8", b"-1", b"x" * 99))
        texts = self.rng.choice(([other], [other, text], [text, other], [text, text], []))
        return [self.field(number, each) for each in texts]

    def ordered(self, lanes: list[list[bytes]]) -> bytes:
        """The fields as usual, or lane among lane, or in any order at all."""
        how = self.rng.random()
        if how < 0.6:
            return b"".join([item for lane in lanes for item in lane])
        items = [item for lane in lanes for item in lane]
        if how > 1 - self.oddness / 3:
            self.rng.shuffle(items)
            return b"".join(items)
        order = [i for i, lane in enumerate(lanes) for _ in lane]
        self.rng.shuffle(order)
        following = [iter(lane) for lane in lanes]
        return b"".join([next(following[i]) for i in order])
