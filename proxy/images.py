"""JPEG and PNG files to pixels and back, for models that take encoded images."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from proxy import image_files
from proxy.errors import InvalidTensor

_FORMATS = ("JPEG", "PNG")
_JPEG_QUALITY = 95
"""High enough that re-encoding a purified image adds less change than the purifier made."""
_MAX_EXIF = 65_533
_MAX_PROFILE = 1 << 20
"""Bytes; longer ones are dropped. The first is the format's own bound."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image file."""

    pixels: Pixels
    """(H, W, C), C 1 or 3; without the alpha channel, as model servers' decoders leave it out."""
    kind: str
    """JPEG or PNG."""
    extras: Mapping[str, bytes] = field(default_factory=dict)
    """What readers may act on besides the pixels: EXIF (the orientation) and colour profile."""


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Read one image file.

    Only the header is read before the size check, so that a bomb is refused unopened.

    Raises:
        InvalidTensor: not a readable JPEG or PNG, or one that readers do not agree about, or more
            than `max_pixels` pixels, or made to take long.
    """
    image_files.check(data)
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd EXIF data, and of sizes, where ours is an error and comes first.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise InvalidTensor(
                        f"an encoded image of {image.width} x {image.height} is over the limit of "
                        f"{max_pixels} pixels"
                    )
                return Picture(_pixels(image), _kind(image), _extras(image))
    except InvalidTensor:
        raise
    # Pillow raises almost anything for a broken file, OSError and SyntaxError most of all; what is
    # unreadable must be refused, never end as a detector failure that policy may let pass.
    except Exception:  # noqa: BLE001
        raise InvalidTensor("an encoded image is not a readable JPEG or PNG file") from None


def _pixels(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, other decoders keep the upper eight bits: what one
        # shows as a picture is black to the other, and could not be judged for both.
        raise InvalidTensor(
            "an encoded image has sixteen bits of grey, which readers do not agree about: send "
            "eight bits"
        )
    grey = image.mode in ("1", "L", "LA")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def _kind(image: Image.Image) -> str:
    return "PNG" if image.format == "PNG" else "JPEG"  # also MPO: a JPEG with more behind it


def _extras(image: Image.Image) -> dict[str, bytes]:
    bounds = {"exif": _MAX_EXIF, "icc_profile": _MAX_PROFILE}
    found = {key: image.info.get(key) for key in bounds}
    return {k: v for k, v in found.items() if isinstance(v, bytes) and 0 < len(v) <= bounds[k]}


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """(H, W, C) uint8 resized to `size` (height, width), bilinear with antialiasing."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return resized.reshape(*size, -1)


def encode(picture: Picture) -> bytes:
    """The picture as a file of its kind; JPEG at high quality, PNG without loss."""
    pixels = picture.pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if picture.kind == "JPEG":
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, **picture.extras)
    else:
        image.save(buffer, "PNG", compress_level=1, **picture.extras)
    return buffer.getvalue()
