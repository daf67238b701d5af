"""Benign and tampered images, as the requests that carry them and back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from proxy.pb import open_inference_pb2 as pb
from proxy.upstream import Answer
from tests.builders import infer_request

CLIENT = "client"
"""The id of every request the tests send; the proxy's own queries have none."""


def benign(count: int, seed: int) -> NDArray[np.float32]:
    """Smooth colour fields with a little noise, (count, 3, 32, 32) in [0, 1], of 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 0.8 + 0.1
    smooth = F.interpolate(coarse, size=(32, 32), mode="bilinear")
    noise = torch.randn(smooth.shape, generator=generator) * (1.5 / 255)
    return ((smooth + noise).clamp(0, 1) * 255).round().div(255).numpy()


def tampered(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The images under a high-frequency pattern that no benign image has."""
    rng = np.random.default_rng(0)
    pattern = np.sign(rng.standard_normal(x.shape[1:])).astype(np.float32)
    return (np.clip(x + 0.1 * pattern, 0, 1) * 255).round().astype(np.float32) / np.float32(255)


def as_file(image: NDArray[np.float32], kind: str = "PNG") -> bytes:
    """(3, H, W) in [0, 1] as an image file."""
    buffer = io.BytesIO()
    pixels = (image * 255).round().astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def as_wire(model: str, x: NDArray[np.float32]) -> NDArray[Any]:
    """Images (B, 3, 32, 32) as the model's own input tensor."""
    if model == "digits_like_nhwc_uint8":
        return np.ascontiguousarray((x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))
    if model == "digits_like_fp16":
        return x.astype(np.float16)
    if model == "encoded":
        return np.array([[as_file(image)] for image in x], np.object_)
    if model in ("sequence_sum", "repeat"):
        return x[0]
    return x


def request(
    model: str, x: NDArray[np.float32], *, typed: bool = False, **options: Any
) -> pb.ModelInferRequest:
    """A request about images; options as for `infer_request`."""
    extra = {"count": np.array([1], np.int32)} if model == "repeat" else {}
    message = infer_request(
        {"image": as_wire(model, x), **extra}, model=model, request_id=CLIENT, **options
    )
    if typed:
        message.ClearField("raw_input_contents")
        message.inputs[0].contents.fp32_contents.extend(as_wire(model, x).ravel().tolist())
    return message


def images_of(model: str, message: bytes) -> NDArray[np.float32]:
    """The images of a raw request to a model that takes tensors, (B, ...) as on the wire."""
    parsed = pb.ModelInferRequest.FromString(message)
    dtype = {"FP32": "<f4", "FP16": "<f2", "UINT8": "u1"}[parsed.inputs[0].datatype]
    return np.frombuffer(parsed.raw_input_contents[0], dtype).reshape(parsed.inputs[0].shape)


def files_of(message: bytes) -> list[bytes]:
    """The files of a raw request to a model that takes encoded images."""
    raw = pb.ModelInferRequest.FromString(message).raw_input_contents[0]
    files = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        files.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return files


def output_of(answer: Answer) -> NDArray[np.float32]:
    """The values of an answer with one FP32 output."""
    response = pb.ModelInferResponse.FromString(answer.data)
    return np.frombuffer(response.raw_output_contents[0], np.float32)


CLEAN = benign(4, seed=99)
MIXED = CLEAN.copy()
MIXED[1] = tampered(CLEAN)[1]
"""Four images, of which the second is tampered with."""
