"""Image files that one reader sees otherwise than another, and files that keep a reader busy."""

from __future__ import annotations

import asyncio
import io
import struct
import time
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from PIL import Image

from tests.builders import infer_request
from tests.bypass.files import chunk, in_scans
from tests.bypass.subject import ATTACK
from tests.images import CLEAN, as_file, request
from tests.proxy.running import Running, ask

pytestmark = pytest.mark.triton

PIXELS = (ATTACK[0] * 255).round().astype(np.uint8).transpose(1, 2, 0)
PICTURE = Image.fromarray(PIXELS)
GREY = np.asarray(PICTURE.convert("L"))
CALM = Image.open(io.BytesIO(as_file(CLEAN[0])))
BUSY, INVALID = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(PICTURE, "JPEG", quality=98, exif=exif)


def see_through(alpha: int) -> bytes:
    picture = PICTURE.copy()
    picture.putalpha(alpha)
    return saved(picture, "PNG")


def thumbnailed() -> bytes:
    """A calm picture in the EXIF data, before the attack."""
    data = saved(PICTURE, "JPEG", quality=98)
    inner = b"Exif\0\0" + saved(CALM, "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + data[2:]


def brightened() -> bytes:
    data = saved(PICTURE, "PNG")
    return data[:33] + chunk(b"gAMA", struct.pack(">I", 20_000)) + data[33:]


FILES: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: saved(PICTURE, "PNG"),
    "stored": lambda: saved(PICTURE, "PNG", compress_level=0),
    "JPEG": lambda: saved(PICTURE, "JPEG", quality=98),
    "progressive": lambda: saved(PICTURE, "JPEG", quality=98, progressive=True),
    "subsampled": lambda: saved(PICTURE, "JPEG", quality=98, subsampling=2),
    "CMYK": lambda: saved(PICTURE.convert("CMYK"), "JPEG", quality=98),
    "grey": lambda: saved(PICTURE.convert("L"), "PNG"),
    "grey JPEG": lambda: saved(PICTURE.convert("L"), "JPEG", quality=98),
    "palette": lambda: saved(PICTURE.quantize(256), "PNG"),
    "transparent": lambda: see_through(0),
    "half transparent": lambda: see_through(128),
    "turned by EXIF": turned,
    "gamma": brightened,
    "with a thumbnail": thumbnailed,
    "with a picture behind it": lambda: saved(PICTURE, "PNG") + saved(CALM, "PNG"),
    "a JPEG, and a PNG behind it": lambda: saved(PICTURE, "JPEG", quality=98) + saved(CALM, "PNG"),
    "animated": lambda: saved(PICTURE, "PNG", save_all=True, append_images=[CALM]),
    "several in one": lambda: saved(
        PICTURE, "MPO", save_all=True, append_images=[CALM], quality=98
    ),
}


async def send(guarded: Running, file: bytes) -> grpc.StatusCode:
    files = np.array([[file]], np.object_)
    reply = await ask(
        guarded.channel, "ModelInfer", infer_request({"image": files}, model="encoded")
    )
    return reply.code


@pytest.mark.parametrize("name", FILES)
async def test_the_attack_in_every_kind_of_file(name: str, guarded: Running) -> None:
    assert await send(guarded, FILES[name]()) is BUSY


UNREADABLE: dict[str, Callable[[], bytes]] = {
    "sixteen bits, the attack in the lower ones": lambda: saved(
        Image.fromarray(GREY.astype(np.uint16)), "PNG"
    ),
    "sixteen bits, the attack in the upper ones": lambda: saved(
        Image.fromarray(GREY.astype(np.uint16) << 8), "PNG"
    ),
    "cut short": lambda: saved(PICTURE, "PNG")[:-200],
    "a JPEG cut short": lambda: saved(PICTURE, "JPEG", quality=98)[:-200],
    "a GIF": lambda: saved(PICTURE, "GIF"),
    "a WebP": lambda: saved(PICTURE, "WEBP", lossless=True),
    "a BMP": lambda: saved(PICTURE, "BMP"),
    "a TIFF": lambda: saved(PICTURE, "TIFF"),
    "something before it": lambda: b"\n" + saved(PICTURE, "PNG"),
    "a bomb": lambda: saved(Image.new("1", (5000, 4000)), "PNG"),
    "a wrong size": lambda: _claiming(40_000),
    "nothing": bytes,
}


def _claiming(side: int) -> bytes:
    data = saved(PICTURE, "PNG")
    return data[:8] + chunk(b"IHDR", struct.pack(">II", side, side) + data[24:29]) + data[33:]


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_readers_differ_about_is_refused(name: str, guarded: Running) -> None:
    assert await send(guarded, UNREADABLE[name]()) is INVALID


async def test_slow_files_do_not_keep_the_others_waiting(guarded: Running) -> None:
    """60 KB that would take three seconds each on the thread that all requests share."""
    bomb = in_scans(side=4000, more=1000)
    started = time.monotonic()
    codes = await asyncio.gather(*(send(guarded, bomb) for _ in range(8)))
    assert {*codes} == {INVALID}
    reply = await ask(guarded.channel, "ModelInfer", request("encoded", ATTACK))
    assert reply.code is BUSY
    assert time.monotonic() - started < 3
