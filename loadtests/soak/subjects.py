"""What is sent and what must come back: images whose right answers are known exactly."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import purifiers
from loadtests.sidecar import images
from proxy import wire

SIDE = 32
CLEAN, TAMPERED = 192, 32
"""Different images of each kind; clean and tampered ones are sent in this proportion."""
NOISE = 24 / 255
"""Of the tampered ones, per pixel and either way: no detector takes it for a photograph."""
PURIFIER, PARAMS = "median", {"size": 3}
OUTPUTS = ("logits", "digest")

Digest = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Subject:
    """One image and the digests that answers to it must have."""

    pixels: bytes
    digest: Digest
    """As sent."""
    purified: Digest
    """As the model sees it when it was purified."""
    is_tampered: bool

    def message(self, model: str, request_id: str) -> bytes:
        """The request, serialised; its id comes back with the answer."""
        tensor = ("image", "FP32", (1, 3, SIDE, SIDE), self.pixels)
        return wire.build_infer_request(model, "", [tensor], OUTPUTS, request_id=request_id)


def digest_of(image: NDArray[np.float32]) -> Digest:
    """As the model computes it."""
    body = np.ascontiguousarray(image).tobytes()
    return zlib.crc32(body), zlib.adler32(body)


def subjects(seed: int = 2) -> list[Subject]:
    """Clean and tampered images, mixed; all digests are different."""
    rng = np.random.default_rng(seed)
    x = images(SIDE, CLEAN + TAMPERED, seed=seed).astype(np.float32) / 255
    signs = rng.choice(np.array([-NOISE, NOISE], np.float32), x[CLEAN:].shape)
    x[CLEAN:] = np.clip(x[CLEAN:] + signs, 0, 1)
    purifier = purifiers.build(PURIFIER, PARAMS)
    with torch.inference_mode():
        cleaned = purifier.purify(torch.from_numpy(x)).numpy()
    made = [
        Subject(one.tobytes(), digest_of(one), digest_of(pure), number >= CLEAN)
        for number, (one, pure) in enumerate(zip(x, cleaned, strict=True))
    ]
    rng.shuffle(made)  # type: ignore[arg-type]
    return made


def unanswerable(model: str) -> list[tuple[str, bytes]]:
    """Requests that must be refused: what is wrong, and the message."""
    good = np.full((1, 3, SIDE, SIDE), 0.5, np.float32)
    bad = good.copy()
    bad[0, 1, 2, 3] = np.nan
    shape = good.shape
    return [
        ("a NaN", _request(model, shape, bad.tobytes())),
        ("an infinity", _request(model, shape, np.full(shape, np.inf, np.float32).tobytes())),
        ("out of range", _request(model, shape, np.full(shape, 9, np.float32).tobytes())),
        ("half the bytes", _request(model, shape, good.tobytes()[: good.nbytes // 2])),
        ("twice the bytes", _request(model, shape, good.tobytes() * 2)),
        ("a huge shape", _request(model, (2**31 - 1, 3, 2**31 - 1, SIDE), good.tobytes())),
        ("a negative shape", _request(model, (-1, 3, SIDE, SIDE), good.tobytes())),
        ("too many axes", _request(model, (1,) * 40, good.tobytes()[:4])),
        ("another datatype", _request(model, shape, good.tobytes(), "INT64")),
        ("no such datatype", _request(model, shape, good.tobytes(), "FP31")),
        ("no such input", _request(model, shape, good.tobytes(), name="picture")),
        ("garbage", np.random.default_rng(1).bytes(4096)),
        ("a message cut short", _request(model, shape, good.tobytes())[:-100]),
        ("nothing", b""),
    ]


def _request(
    model: str, shape: Sequence[int], data: bytes, datatype: str = "FP32", name: str = "image"
) -> bytes:
    return wire.build_infer_request(model, "", [(name, datatype, shape, data)])
