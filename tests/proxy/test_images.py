"""Image files: what is read, what is refused unopened, what survives re-encoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from proxy import images
from proxy.errors import InvalidTensor

RNG = np.random.default_rng(0)
SMOOTH = np.stack(
    np.broadcast_arrays(*np.ogrid[0:240:12j, 0:240:16j], np.full((12, 16), 90.0)), axis=2
).astype(np.uint8)
ORIENTATION_6 = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def file(mode: str = "RGB", kind: str = "PNG", pixels: Any = SMOOTH, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int = 10_000) -> images.Picture:
    return images.decode(data, max_pixels=max_pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_usual_files(kind: str, mode: str) -> None:
    picture = decode(file(mode, kind))
    expected = np.asarray(Image.fromarray(SMOOTH).convert(mode)).reshape(12, 16, -1)
    assert picture.kind == kind
    assert picture.pixels.shape == (12, 16, len(mode))
    assert np.abs(picture.pixels.astype(int) - expected).max() <= (0 if kind == "PNG" else 24)


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [("1", "PNG", 1), ("LA", "PNG", 1), ("P", "PNG", 3), ("RGBA", "PNG", 3), ("CMYK", "JPEG", 3)],
)
def test_other_colour_modes_become_grey_or_colour(mode: str, kind: str, channels: int) -> None:
    data = file(mode, kind)
    expected = Image.open(io.BytesIO(data)).convert("RGB" if channels == 3 else "L")
    picture = decode(data)
    assert picture.pixels.shape == (12, 16, channels)
    assert np.array_equal(picture.pixels.squeeze(), np.asarray(expected))


def test_a_palette_with_transparency_is_no_warning() -> None:
    assert decode(file("P", transparency=b"\x00\x80")).pixels.shape == (12, 16, 3)


def test_sixteen_bits_of_grey_are_refused() -> None:
    """Readers differ: the lower eight bits, cut off at 255, or the upper ones."""
    wide = (np.arange(192, dtype=np.uint16) * 340).reshape(12, 16)
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")
    with pytest.raises(InvalidTensor, match="send eight bits"):
        decode(buffer.getvalue())


def test_a_jpeg_with_more_pictures_behind_it_is_a_jpeg() -> None:
    buffer = io.BytesIO()
    first, second = Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    picture = decode(buffer.getvalue())
    assert picture.kind == "JPEG"
    assert np.abs(picture.pixels.astype(int) - SMOOTH).max() <= 24


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(InvalidTensor, match="not a readable JPEG or PNG"):
        decode(file(kind=kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("cut", [0, 1, 20, 0.5, 0.9])
def test_truncated_files_are_refused(kind: str, cut: float) -> None:
    noise = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    data = file(kind=kind, pixels=noise)
    with pytest.raises(InvalidTensor, match="not a readable"):
        decode(data[: int(cut * len(data)) if 0 < cut < 1 else int(cut)])


def bomb(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


@pytest.mark.parametrize(("width", "height"), [(101, 100), (12_000, 9_000), (150_000_000, 1)])
def test_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    with pytest.raises(InvalidTensor, match=f"{width} x {height} is over the limit of 10000"):
        decode(bomb(width, height))


def test_a_bomb_over_pillows_own_bound_is_refused() -> None:
    with pytest.raises(InvalidTensor):
        decode(bomb(1 << 20, 1 << 20))


def test_the_bound_itself_is_allowed() -> None:
    assert decode(file(), max_pixels=12 * 16).pixels.shape == (12, 16, 3)


@given(
    st.sampled_from(["PNG", "JPEG"]),
    st.lists(
        st.tuples(st.sampled_from("xdi"), st.floats(0, 1, exclude_max=True), st.binary(min_size=1)),
        min_size=1,
        max_size=4,
    ),
)
def test_damaged_files_are_refused_or_read_and_nothing_else(
    kind: str, damage: list[tuple[str, float, bytes]]
) -> None:
    data = bytearray(file(kind=kind, **({"exif": ORIENTATION_6} if kind == "JPEG" else {})))
    for what, where, noise in damage:
        at = int(where * len(data))
        after = {"x": at + len(noise), "d": at + 8 * len(noise), "i": at}[what]
        data[at:after] = b"" if what == "d" else noise
    try:
        picture = decode(bytes(data))
    except InvalidTensor:
        return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape[2] in (1, 3)
    images.encode(picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_loses_nothing(channels: int) -> None:
    pixels = RNG.integers(0, 256, (5, 7, channels), dtype=np.uint8)
    again = decode(images.encode(images.Picture(pixels, "PNG")))
    assert again.kind == "PNG"
    assert np.array_equal(again.pixels, pixels)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_stays_jpeg_and_close(mode: str) -> None:
    picture = decode(file(mode, "JPEG"))
    again = decode(images.encode(picture))
    assert again.kind == "JPEG"
    assert np.abs(again.pixels.astype(int) - picture.pixels).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_orientation_and_colour_profile_survive(kind: str) -> None:
    data = file(kind=kind, exif=ORIENTATION_6, icc_profile=b"a colour profile")
    again = Image.open(io.BytesIO(images.encode(decode(data))))
    assert again.getexif()[0x0112] == 6
    assert again.info["icc_profile"] == b"a colour profile"


def test_an_absurd_profile_is_dropped() -> None:
    assert decode(file(kind="JPEG", icc_profile=b"x" * (2 << 20))).extras == {}


@pytest.mark.parametrize("make", [lambda v: np.full((9, 9, 1), v), lambda v: np.full((9, 9, 3), v)])
def test_resizing_keeps_a_flat_image_flat(make: Callable[[int], Any]) -> None:
    resized = images.resize(make(77).astype(np.uint8), (4, 6))
    assert resized.shape[:2] == (4, 6)
    assert (resized == 77).all()


def test_resizing_takes_height_first_and_averages() -> None:
    stripes = np.zeros((8, 8, 1), np.uint8)
    stripes[::2] = 200
    resized = images.resize(stripes, (2, 8))
    assert resized.shape == (2, 8, 1)
    assert abs(int(resized.mean()) - 100) <= 15  # antialiased: not one row or the other
