"""Files built to keep a decoder busy, and ordinary ones that must pass."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from PIL import Image

from proxy.errors import InvalidTensor
from proxy.image_files import check
from tests.bypass.files import chunk, in_scans, saved

PNG = saved("PNG")
HEADER, REST = PNG[:33], PNG[33:]
JPEG = saved("JPEG")
MEGABYTE = zlib.compress(bytes(1_000_000))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"compress_level": 0}),
        ("PNG", {"icc_profile": bytes(100_000)}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"icc_profile": bytes(3_000_000), "comment": b"a" * 60_000}),
        ("JPEG", {"restart_marker_blocks": 1}),
        ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (8, 8))] * 3}),
    ],
)
def test_ordinary_files_pass(kind: str, options: dict[str, Any]) -> None:
    check(saved(kind, side=300, **options))


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", PNG[:20], PNG[:40], HEADER, b"\x89PNG", PNG[:-12]]
)
def test_what_is_no_such_file_is_for_the_decoder_to_say(data: bytes) -> None:
    check(data)


def animation(frames: int) -> bytes:
    pictures = [Image.new("RGB", (8, 8), (i % 256, 0, 0)) for i in range(frames)]
    return saved("PNG", save_all=True, append_images=pictures)


def test_an_animation_passes() -> None:
    check(animation(200))


@pytest.mark.parametrize(
    "data",
    [
        HEADER + chunk(b"IDAT") * 10_000 + REST,
        HEADER + chunk(b"fdAT") * 10_000 + REST,
        HEADER + chunk(b"tEXt", b"a\0") * 100 + REST,
        HEADER + chunk(b"iCCP", b"a\0\0" + MEGABYTE) * 100 + REST,
        PNG[:-12] + chunk(b"abCd") * 10_000 + PNG[-12:],
    ],
    ids=["IDAT", "fdAT", "text", "profiles", "after the picture"],
)
def test_too_many_chunks(data: bytes) -> None:
    with pytest.raises(InvalidTensor, match="too many chunks"):
        check(data)


@pytest.mark.parametrize(
    "segment", [b"\xff\xfe\0\2", b"\xff\xdb\0\2", b"\xff\x01", b"\xff\xe1\0\x08Exif\0\0"]
)
def test_too_many_segments(segment: bytes) -> None:
    with pytest.raises(InvalidTensor, match="too many segments"):
        check(JPEG[:2] + segment * 10_000 + JPEG[2:])


@pytest.mark.parametrize("junk", [b"\xff" * 100, b"\xff\0" * 100, b"\0", b"\xff\xfe\0\0"])
def test_junk_between_segments(junk: bytes) -> None:
    with pytest.raises(InvalidTensor):
        check(JPEG[:2] + junk + JPEG[2:])


@pytest.mark.parametrize("end", [2, 3, 4, 5, 30])
def test_a_header_cut_short(end: int) -> None:
    with pytest.raises(InvalidTensor, match="not a readable"):
        check(JPEG[:end])


def test_too_many_scans() -> None:
    check(in_scans(side=64, more=80))
    with pytest.raises(InvalidTensor, match="scans"):
        check(in_scans(side=64, more=100))
