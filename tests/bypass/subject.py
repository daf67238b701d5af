"""What the models under attack say of an image, and whether an answer shows that they saw it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from proxy.pb import open_inference_pb2 as pb
from tests.images import CLEAN, tampered

WEIGHTS = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4")
"""Of tests/models/digits_like."""

ATTACK = tampered(CLEAN[:1])
"""One image, (1, 3, 32, 32), that is blocked when it is sent plainly."""


def says(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of digits_like, (B, 10)."""
    return (x.reshape(len(x), -1) - 0.5) @ WEIGHTS


def has_seen(answer: bytes, x: NDArray[np.float32] = ATTACK) -> bool:
    """Whether an answer holds what the model says of the first of these images."""
    response = pb.ModelInferResponse.FromString(answer)
    wanted = says(x)[0]
    for raw in response.raw_output_contents:
        if len(raw) % 40 == 0 and len(raw):
            rows = np.frombuffer(raw, np.float32).reshape(-1, 10)
            if any(np.allclose(row, wanted, atol=0.02) for row in rows):
                return True
    return False
