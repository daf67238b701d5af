"""Image files that are built by hand."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image

SCAN = b"\xff\xda"


def saved(kind: str, *, side: int = 8, **options: Any) -> bytes:
    """An image file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (120, 90, 60)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def in_scans(*, side: int, more: int) -> bytes:
    """A progressive grey JPEG whose second scan comes `more` times again; each goes over it all."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True, quality=50)
    data = buffer.getvalue()
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == SCAN]
    again = data[starts[1] : data.index(b"\xff\xc4", starts[1])]
    return data[: starts[1]] + again * (more + 1) + b"\xff\xd9"
