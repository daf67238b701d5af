"""JPEG and PNG files to pixels and back, for models that take encoded images."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

from proxy.errors import InvalidTensor

_FORMATS = ("JPEG", "PNG")
_JPEG_QUALITY = 95
"""High enough that re-encoding a purified image adds less change than the purifier made."""


def decode(data: bytes, *, max_pixels: int) -> tuple[npt.NDArray[np.uint8], str]:
    """The pixels of one image file, (H, W, C) uint8 with C 1 or 3, and the file's format.

    Only the header is read before the size check, so that a bomb is refused unopened.

    Raises:
        InvalidTensor: not a readable JPEG or PNG, or more than `max_pixels` pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own size warning; ours is an error and comes first.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise InvalidTensor(
                        f"an encoded image of {image.width} x {image.height} is over the limit of "
                        f"{max_pixels} pixels"
                    )
                grey = image.mode in ("1", "L", "LA", "I", "I;16")
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
                kind = image.format or "PNG"
    except InvalidTensor:
        raise
    # Pillow raises almost anything for a broken file (OSError, SyntaxError, struct.error, ...).
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError):
        raise InvalidTensor("an encoded image is not a readable JPEG or PNG file") from None
    return pixels.reshape(*pixels.shape[:2], -1), kind


def resize(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(H, W, C) uint8 resized to `size` (height, width), bilinear with antialiasing."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return resized.reshape(*size, -1)


def encode(pixels: npt.NDArray[np.uint8], kind: str) -> bytes:
    """An image file of the given format; JPEG at high quality, PNG without loss."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
