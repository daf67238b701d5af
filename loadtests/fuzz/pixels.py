"""What detectors see of an input against numpy's own reading of it, and image files gone wrong."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from loadtests.fuzz.reading import Difference, same
from loadtests.fuzz.values import SIZES, payload
from proxy import images
from proxy.adapt import ModelSpec
from proxy.config import Layout
from proxy.datatypes import element_count
from proxy.kinds import codec_of

_WIRE = {"FP32": "<f4", "FP16": "<f2", "UINT8": "u1", "INT8": "i1", "BF16": "<u2"}
_ENDS = {"UINT8": ((0.0,), (255.0,)), "INT8": ((-128.0,), (127.0,))}
_MAX_PIXELS = 1 << 16


def spec(
    datatype: str, layout: Layout, low: tuple[float, ...], high: tuple[float, ...]
) -> ModelSpec:
    """An image model whose sizes are free."""
    channels, axes = len(low) if len(low) > 1 else -1, len(layout)
    shape = [-1] * axes
    shape[layout.index("C")] = channels
    return ModelSpec(
        **{"model": "m", "input": "x", "datatype": datatype, "layout": layout},
        **{"shape": tuple(shape), "low": low, "high": high, "tolerance": 0.25},
        **{"encoded": False, "size": None, "max_pixels": _MAX_PIXELS, "ignored_inputs": ()},
        **{"output": None, "output_kind": "none", "batch_limit": 1, "max_batch": None},
        **{"stateful": False, "may_be_stateful": False, "decoupled": False, "versions": ("1",)},
    )


_RANGES: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = (
    ((0.0,), (1.0,)),
    ((-1.0,), (1.0,)),
    ((0.0,), (255.0,)),
    ((-2.1, -2.0, -1.8), (2.2, 2.4, 2.6)),
)
_SPECS = [
    spec(datatype, layout, low, high)
    for datatype in ("FP32", "FP16", "BF16", "UINT8", "INT8")
    for layout in ("NCHW", "NHWC", "CHW", "HWC")
    for low, high in ([_ENDS[datatype]] if datatype in _ENDS else _RANGES)
]
_CODECS = [(each, codec_of(each)) for each in _SPECS]


def case(rng: random.Random) -> tuple[bytes, Callable[[], None]]:
    """One tensor of one model, and its check."""
    chosen, codec = rng.choice(_CODECS)
    layout = chosen.layout or ""
    sizes = {"N": rng.choice((0, 1, 1, 2)), "C": rng.choice((1, 3, 3, 3, 2, 0))}
    sizes |= {axis: rng.choice((1, 2, 3, 5, 0)) for axis in "HW"}
    if rng.random() < 0.03:  # as much as a valid request can say, and no values
        sizes |= {rng.choice("NHW"): 0, "C": 3, rng.choice("NHW"): rng.choice((2**31, 2**58))}
    shape = tuple(sizes[axis] for axis in layout)
    count = 1
    for size in shape:
        count *= size
    if count > 1 << 16:
        shape, count = tuple(min(size, 4) for size in shape), 0
        count = int(np.prod(shape))
    raw = payload(rng, chosen.datatype, count, 0.2)
    if chosen.datatype.startswith(("FP", "BF")) and rng.random() < 0.7:
        raw = _tame(rng, chosen.datatype, count)
    # Messages are full of unaligned tensors.
    offset = rng.randrange(8)
    data = memoryview(bytes(offset) + raw)[offset:]

    def check() -> None:
        element_count(shape)  # as validation does first
        got = codec.decode(data, shape)
        wanted = _expected(chosen, raw, shape)
        if wanted is None:
            raise Difference("values outside the range, or none at all, were accepted")
        same("pixels' shape", tuple(got.shape), wanted.shape)
        # clamp may turn -0.0 into 0.0: the same pixel, black.
        same("pixels", (got.numpy() + 0.0).tobytes(), (wanted + 0.0).tobytes())
        if got.numel() and not bool(torch.isfinite(got).all()):
            raise Difference("a pixel is not finite")

    return raw, check


def _tame(rng: random.Random, datatype: str, count: int) -> bytes:
    values = np.array(
        [rng.choice((0, -0.0, 1e-40, 6e-8, 0.25, rng.random(), 1)) for _ in range(count)]
    )
    if datatype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(_WIRE[datatype]).tobytes()


def _expected(chosen: ModelSpec, raw: bytes, shape: tuple[int, ...]) -> np.ndarray | None:
    """Numpy's own reading, (B, C, H, W); None where the values are no image."""
    assert len(raw) == int(np.prod(shape)) * SIZES[chosen.datatype]
    wire = np.frombuffer(raw, _WIRE[chosen.datatype]).reshape(shape)
    if chosen.datatype == "BF16":
        wire = (wire.astype("<u4") << 16).view("<f4")
    x = wire.astype(np.float32)
    layout = chosen.layout or ""
    x = x if layout.startswith("N") else x[None]
    x = x if layout.endswith("CHW") else np.moveaxis(x, -1, 1)
    low = np.array(chosen.low, np.float32).reshape(1, -1, 1, 1)
    span = np.array(chosen.high, np.float32).reshape(1, -1, 1, 1) - low
    with np.errstate(all="ignore"):
        x = np.ascontiguousarray((x - low) / span)
    if x.size and not (x.min() >= -chosen.tolerance and x.max() <= 1 + chosen.tolerance):
        return None
    return x.clip(0, 1)


def file_case(rng: random.Random) -> tuple[bytes, Callable[[], None]]:
    """An image file, often a damaged one, and its check."""
    height, width = rng.randint(1, 24), rng.randint(1, 24)
    mode = rng.choice(("RGB", "L", "RGBA", "LA", "1", "P", "I;16", "CMYK"))
    kind = "JPEG" if mode in ("RGB", "L", "CMYK") and rng.random() < 0.5 else "PNG"
    mode = "RGB" if mode == "CMYK" and kind == "PNG" else mode
    if mode == "I;16":
        image = Image.frombytes(mode, (width, height), rng.randbytes(2 * height * width))
    else:
        image = Image.frombytes("RGB", (width, height), rng.randbytes(3 * height * width))
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        at = rng.randrange(len(data))
        if rng.random() < 0.2:
            del data[at:]
            break
        data[at] = rng.randrange(256)
    file = bytes(data)

    def check() -> None:
        picture = images.decode(file, max_pixels=_MAX_PIXELS)
        same("planes", picture.pixels.shape[2] in (1, 3), True)
        if picture.pixels.shape[0] * picture.pixels.shape[1] > _MAX_PIXELS:
            raise Difference("an image over the limit was decoded")
        again = images.decode(images.encode(picture), max_pixels=_MAX_PIXELS)
        same("size", again.pixels.shape, picture.pixels.shape)
        if picture.kind == "PNG":
            same("lossless", again.pixels.tobytes(), picture.pixels.tobytes())

    return file, check
