"""Wire tensors to pixel batches and back: datatype, layout and value range of one model's input."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from proxy import images
from proxy.adapt import ModelSpec
from proxy.case import Buffer
from proxy.datatypes import frame_strings, strings
from proxy.errors import InvalidTensor

_TORCH = {
    "FP32": torch.float32,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
}
_TO_NCHW = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
_FROM_NCHW = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}


class PixelCodec:
    """Reads and writes one model's image tensor.

    Args:
        spec: the model's input as resolved against Triton.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._low = torch.tensor(spec.low).view(1, -1, 1, 1)
        self._span = torch.tensor(spec.high).view(1, -1, 1, 1) - self._low
        self._is_unit = spec.low == (0.0,) and spec.high == (1.0,)

    def samples(self, shape: Sequence[int]) -> int:
        """How many images a tensor of this wire shape holds.

        Raises:
            InvalidTensor: the shape does not fit the model's layout.
        """
        spec = self._spec
        if spec.encoded:
            return int(np.prod(shape, dtype=np.int64))
        if spec.layout is None or len(shape) != len(spec.layout):
            raise InvalidTensor(
                f"input {spec.input!r} has shape {list(shape)}, expected layout {spec.layout}"
            )
        return int(shape[0]) if spec.has_batch_axis else 1

    def decode(self, data: Buffer, shape: Sequence[int]) -> Tensor:
        """The pixels of a raw tensor, (B, C, H, W) float32 in [0, 1], never aliasing `data`.

        Raises:
            InvalidTensor: shape, channels or value range are not the model's; an unreadable file.
        """
        self.samples(shape)
        if self._spec.encoded:
            return self._decode_files(data)
        x = self._view(data, shape)
        if x.shape[1] not in (1, 3):
            raise InvalidTensor(
                f"input {self._spec.input!r} has {x.shape[1]} channels, expected 1 or 3"
            )
        if 0 in x.shape[2:]:
            raise InvalidTensor(f"input {self._spec.input!r} has images without pixels")
        channels = self._low.shape[1]
        if channels not in (1, x.shape[1]):
            raise InvalidTensor(
                f"input {self._spec.input!r} has {x.shape[1]} channels, expected {channels}"
            )
        x = x.to(torch.float32)
        if not self._is_unit:
            x = (x - self._low) / self._span
        return self._bounded(x)

    def encode(self, x: Tensor) -> bytes:
        """Pixels (B, C, H, W) in [0, 1] as a raw tensor of the wire's datatype and layout.

        Encoded inputs become PNG files, which lose nothing; use `encode_like` to keep the format.
        """
        spec = self._spec
        if spec.encoded:
            return frame_strings([images.encode(pixels, "PNG") for pixels in _to_uint8(x)])
        y = x if self._is_unit else x * self._span + self._low
        y = y.permute(*_FROM_NCHW[self._batched_layout]).contiguous()
        dtype = _TORCH[spec.datatype]
        if not dtype.is_floating_point:
            limits = torch.iinfo(dtype)
            y = y.round().clamp(limits.min, limits.max)
        return bytes(y.to(dtype).contiguous().view(torch.uint8).numpy().data)

    def files(self, data: Buffer) -> list[bytes]:
        """The files in a raw BYTES tensor."""
        return list(strings(data))

    def decode_full(self, file: bytes) -> tuple[Tensor, str]:
        """One image file at its own size, (1, C, H, W) float32 in [0, 1], and its format."""
        pixels, kind = images.decode(file, max_pixels=self._spec.max_pixels)
        return _from_uint8([pixels]), kind

    def encode_file(self, x: Tensor, kind: str) -> bytes:
        """(1, C, H, W) in [0, 1] as one file of the given format."""
        return images.encode(_to_uint8(x)[0], kind)

    def frame(self, files: Sequence[bytes]) -> bytes:
        """Files as a raw BYTES tensor."""
        return frame_strings(files)

    @property
    def _batched_layout(self) -> str:
        layout = self._spec.layout or "NCHW"
        return layout if len(layout) == 4 else f"N{layout}"

    def _view(self, data: Buffer, shape: Sequence[int]) -> Tensor:
        """(B, C, H, W) view of the wire's values in their own datatype."""
        full = tuple(shape) if self._spec.has_batch_axis else (1, *shape)
        dtype = _TORCH[self._spec.datatype]
        if 0 in full:
            return torch.empty(full, dtype=dtype).permute(*_TO_NCHW[self._batched_layout])
        with warnings.catch_warnings():
            # The buffer is read-only and so is our use of it: every path below copies.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            flat = torch.frombuffer(data, dtype=dtype)
        return flat.view(full).permute(*_TO_NCHW[self._batched_layout])

    def _bounded(self, x: Tensor) -> Tensor:
        if x.numel():
            low, high = torch.aminmax(x)
            tolerance = self._spec.tolerance
            # Written so that NaN fails too.
            if not (low.item() >= -tolerance and high.item() <= 1 + tolerance):
                raise InvalidTensor(
                    f"input {self._spec.input!r} has pixel values from {low.item():.4g} to "
                    f"{high.item():.4g} where 0 to 1 is black to white; check range or mean/std"
                )
        return x.clamp(0.0, 1.0)  # a copy, contiguous or not

    def _decode_files(self, data: Buffer) -> Tensor:
        size = self._spec.size
        if size is None:
            raise InvalidTensor("encoded inputs need a size")
        pixels = [
            images.resize(images.decode(f, max_pixels=self._spec.max_pixels)[0], size)
            for f in strings(data)
        ]
        colour = any(p.shape[2] == 3 for p in pixels)
        return _from_uint8(
            [np.repeat(p, 3, 2) if colour and p.shape[2] == 1 else p for p in pixels]
        )


def _from_uint8(pixels: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> Tensor:
    stacked = torch.from_numpy(np.stack(pixels))  # (B, H, W, C)
    return stacked.permute(0, 3, 1, 2).to(torch.float32).div_(255.0).contiguous()


def _to_uint8(x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(B, C, H, W) in [0, 1] -> (B, H, W, C) uint8."""
    y = (x * 255.0).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(y.permute(0, 2, 3, 1).numpy())
