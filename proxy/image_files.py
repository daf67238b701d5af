"""The build of JPEG and PNG files, checked before a decoder sees them.

Decoders walk a file's parts one by one, whatever their number, and a JPEG's scans each go over the
whole picture again: a file of 60 KB kept Pillow busy for three seconds, 1 MB for most of a minute,
on the thread that all requests share. What real files have is far below these bounds.
"""

from __future__ import annotations

from proxy.errors import InvalidTensor

_JPEG = b"\xff\xd8"
_SCAN = b"\xff\xda"
_MOST_SCANS = 100
"""Progressive files have about ten. Each costs 3 ms for 16 million pixels of grey."""
_MOST_SEGMENTS = 512
"""Before the picture. A colour profile may take 255."""
_MOST_FILL = 16
"""Bytes of padding before a marker."""
_START_OF_SCAN = 0xDA
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
"""Markers without a segment."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE = frozenset((b"IDAT", b"fdAT", b"fcTL"))
_MOST_OTHERS = 64
"""Chunks besides those of the picture. Some are unpacked, a megabyte at most each."""
_MOST_CHUNKS = 1024
_BYTES_A_CHUNK = 512
"""Encoders write 8 KB and more at a time; one chunk more for each of these is allowed."""


def check(data: bytes) -> None:
    """Raise InvalidTensor where a file has more parts than a picture needs.

    Only what costs time is checked: whether it is a picture is for the decoder to say.
    """
    if data.startswith(_PNG):
        _check_chunks(data)
    elif data.startswith(_JPEG):
        _check_segments(data)
        if data.count(_SCAN) > _MOST_SCANS:  # within a scan 0xff is followed by other bytes
            raise InvalidTensor(f"an encoded image has more than {_MOST_SCANS} scans")


def _check_chunks(data: bytes) -> None:
    at, chunks, others, size = len(_PNG), 0, 0, len(data)
    most = _MOST_CHUNKS + size // _BYTES_A_CHUNK
    while at + 8 <= size:
        kind = data[at + 4 : at + 8]
        if kind == b"IEND":
            return
        chunks += 1
        others += kind not in _PICTURE
        if chunks > most or others > _MOST_OTHERS:
            raise InvalidTensor("an encoded image has too many chunks")
        at += 12 + int.from_bytes(data[at : at + 4])


def _check_segments(data: bytes) -> None:
    at, size = len(_JPEG), len(data)
    for _ in range(_MOST_SEGMENTS):
        start = at
        while at < size and data[at] == 0xFF and at - start <= _MOST_FILL:
            at += 1
        if at >= size or not 0 < at - start <= _MOST_FILL:
            raise InvalidTensor("an encoded image is not a readable JPEG or PNG file")
        marker = data[at]
        if marker == _START_OF_SCAN:
            return
        at += 1 if marker in _ALONE else 1 + int.from_bytes(data[at + 1 : at + 3])
    raise InvalidTensor("an encoded image has too many segments")
