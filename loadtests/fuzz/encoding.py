"""Protobuf's wire format written by hand, well and badly: what no serialiser would ever write."""

from __future__ import annotations

import random
import struct

GROUP_START, GROUP_END = 3, 4


def varint(value: int, pad: int = 0) -> bytes:
    """A varint, made longer than it need be by `pad` bytes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(pad):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


class Encoder:
    """Writes fields, some of them oddly.

    Args:
        rng: decides.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.oddness = 0.0
        """Share of the choices that are unusual or wrong, 0 to 1."""
        self.pads_tags = True
        """Whether tags may be longer than they need be. Protobuf in pure Python, alone among its
        implementations, takes those for unknown fields."""

    def odd(self, weight: float = 1.0) -> bool:
        """Whether to do the unusual thing here."""
        return self.oddness > 0 and self.rng.random() < self.oddness * weight

    def number(self, value: int) -> bytes:
        """A varint of 64 bits, sometimes padded, over-long or with bits that do not count."""
        value &= (1 << 64) - 1
        if not self.odd(0.3):
            return varint(value)
        plain = varint(value)
        match self.rng.randrange(4):
            case 0:
                return varint(value, self.rng.randrange(0, max(1, 11 - len(plain))))
            case 1:  # ten bytes, with bits beyond the 64th
                wide = bytearray(varint(value, 10 - len(plain)))
                wide[-1] |= self.rng.randrange(128) & 0x7E
                return bytes(wide)
            case 2:  # eleven bytes: malformed
                return varint(value, 11 - len(plain))
            case _:
                return varint(self.rng.getrandbits(64))

    def tag(self, number: int, wire_type: int) -> bytes:
        """A tag, sometimes longer than it need be or with bits beyond the 32nd."""
        tag = number << 3 | wire_type
        if not self.odd(0.08) or not self.pads_tags:
            return varint(tag)
        match self.rng.randrange(3):
            case 0:
                return varint(tag, self.rng.randrange(1, 4))
            case 1:  # five bytes, bits 32 to 34 set at will
                wide = bytearray(varint(tag, 5 - len(varint(tag))))
                wide[-1] |= self.rng.randrange(128) & 0x70
                return bytes(wide)
            case _:
                return varint(tag, 5)

    def field(self, number: int, payload: bytes) -> bytes:
        """A length-delimited field, sometimes with a padded, false or gigantic length."""
        if not self.oddness:
            return varint(number << 3 | 2) + varint(len(payload)) + payload
        length = varint(len(payload))
        if self.odd(0.2):
            match self.rng.randrange(8):
                case 0:
                    length = varint(len(payload) + self.rng.choice((-1, 1, 2, 1000)) & 0xFFFFFFFF)
                case 1:
                    wide = bytearray(varint(len(payload), 5 - len(length)))
                    wide[-1] |= self.rng.choice((0x08, 0x10, 0x40))
                    length = bytes(wide)
                case 2:
                    length = varint(len(payload), self.rng.randrange(4, 9))
                case _:
                    length = varint(len(payload), self.rng.randrange(1, 5 - len(length) + 1))
        return self.tag(number, 2) + length + payload

    def scalar(self, number: int, value: int) -> bytes:
        """A varint field, sometimes of another wire type."""
        if self.odd(0.1):
            return self.stray(number)
        return self.tag(number, 0) + self.number(value)

    def double(self, number: int, value: float) -> bytes:
        """A field of eight bytes."""
        return self.tag(number, 1) + struct.pack("<d", value)

    def stray(self, number: int) -> bytes:
        """A field of any wire type, groups and types that do not exist among them."""
        rng = self.rng
        match rng.randrange(9):
            case 0 | 1:
                return varint(number << 3) + self.number(rng.getrandbits(rng.randrange(64)))
            case 2:
                return varint(number << 3 | 1) + rng.randbytes(8)
            case 3 | 4:
                return self.field(number, rng.randbytes(rng.randrange(6)))
            case 5:
                return varint(number << 3 | 5) + rng.randbytes(4)
            case 6:
                inner = self.unknown() if rng.random() < 0.5 else b""
                end = number if rng.random() < 0.9 else number + 1
                return varint(number << 3 | GROUP_START) + inner + varint(end << 3 | GROUP_END)
            case 7:
                return varint(number << 3 | rng.choice((GROUP_START, GROUP_END, 6, 7)))
            case _:
                return varint(number << 3 | rng.randrange(6))

    def unknown(self) -> bytes:
        """A field of a number that the protocol does not have, or 0, or beyond what may be."""
        rng = self.rng
        number = rng.choice((0, 9, 10, 15, 16, 19000, 2**29 - 1, 2**29, 2**32 - 1))
        if number and number < 2**29 and rng.random() < 0.7:
            match rng.randrange(4):
                case 0:
                    return varint(number << 3) + varint(rng.getrandbits(rng.randrange(1, 64)))
                case 1:
                    return varint(number << 3 | 1) + rng.randbytes(8)
                case 2:
                    return varint(number << 3 | 5) + rng.randbytes(4)
                case _:
                    data = rng.randbytes(rng.randrange(5))
                    return varint(number << 3 | 2) + varint(len(data)) + data
        return self.stray(number)
