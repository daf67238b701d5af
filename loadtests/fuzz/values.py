"""Tensor values that matter: any bits, and those that arithmetic and formats treat specially."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence

SIZES = {
    **{"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8},
    **{"INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8},
    **{"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "BYTES": 0},
}
"""Bytes an element; 0 where they vary."""
TYPES = tuple(SIZES)
CODES = {
    **{"BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"},
    **{"INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q"},
    **{"FP16": "e", "FP32": "f", "FP64": "d"},
}
"""The language's own letters for them."""
TYPED = {
    "BOOL": 1,
    **dict.fromkeys(("INT8", "INT16", "INT32"), 2),
    **{"INT64": 3, "UINT64": 5, "FP32": 6, "FP64": 7, "BYTES": 8},
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), 4),
}
"""Field number in InferTensorContents."""

_SPECIAL = {
    # zero, -0, least and largest subnormal, least normal, largest, 1, -1
    "FP16": (0, 0x8000, 1, 0x03FF, 0x0400, 0x7BFF, 0x3C00, 0xBC00),
    "BF16": (0, 0x8000, 1, 0x007F, 0x0080, 0x7F7F, 0x3F80, 0xBF80),
    "FP32": (0, 1 << 31, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x3F800000, 0xBF800000),
    "FP64": (0, 1 << 63, 1, (1 << 52) - 1, 1 << 52, 0x7FEFFFFFFFFFFFFF, 0x3FF << 52),
}
_NOT_FINITE = {
    # both infinities, quiet and signalling NaNs with payloads
    "FP16": (0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFE55, 0x7DFF),
    "BF16": (0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFD5, 0x7FBF),
    "FP32": (0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345, 0x7FBFFFFF),
    "FP64": (0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, (0x7FF << 52) + 1, 0xFFFC << 48),
}
_BITS = {"FP16": "H", "BF16": "H", "FP32": "I", "FP64": "Q"}


def framed(elements: Sequence[bytes]) -> bytes:
    """The raw form of BYTES elements."""
    return b"".join([struct.pack("<I", len(e)) + e for e in elements])


def elements(rng: random.Random, count: int) -> list[bytes]:
    """Strings of any bytes, empty ones and NULs among them."""
    return [rng.randbytes(rng.choice((0, 0, 1, 3, 7))) for _ in range(count)]


def payload(rng: random.Random, datatype: str, count: int, strange: float) -> bytes:
    """`count` values in raw form; `strange` is the chance of a value that is not finite."""
    if datatype == "BYTES":
        return framed(elements(rng, count))
    if datatype == "BOOL":
        return bytes([rng.getrandbits(1) for _ in range(count)])
    if datatype not in _BITS:
        return rng.randbytes(count * SIZES[datatype])
    words = [rng.choice(_SPECIAL[datatype]) for _ in range(count)]
    if count and rng.random() < strange:
        words[rng.randrange(count)] = rng.choice(_NOT_FINITE[datatype])
    return struct.pack(f"<{count}{_BITS[datatype]}", *words)


def numbers(datatype: str, raw: bytes) -> list[int | float]:
    """Raw numbers as the language's own, with no library in between."""
    count = len(raw) // SIZES[datatype]
    if datatype == "BF16":
        words = struct.unpack(f"<{count}H", raw)
        return [struct.unpack("<f", struct.pack("<I", word << 16))[0] for word in words]
    return list(struct.unpack(f"<{count}{CODES[datatype]}", raw))


def all_finite(datatype: str, raw: bytes) -> bool:
    """Whether no value is NaN or infinite."""
    return datatype not in _BITS or all(math.isfinite(value) for value in numbers(datatype, raw))


def taken_apart(raw: bytes) -> list[bytes]:
    """The elements of a raw BYTES tensor; what is badly framed ends them."""
    found, position = [], 0
    while position + 4 <= len(raw):
        (size,) = struct.unpack_from("<I", raw, position)
        found.append(raw[position + 4 : position + 4 + size])
        position += 4 + size
    return found
