"""Wire tensors to pixel batches and back: datatype, layout and value range of one model's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from proxy import images
from proxy.adapt import ModelSpec
from proxy.case import Buffer
from proxy.codec import Codec, memory_of
from proxy.datatypes import frame_strings, strings
from proxy.errors import InvalidTensor

_TO_NCHW = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}

_WIRE: dict[str, type[np.generic]] = {"FP32": np.float32, "UINT8": np.uint8, "INT8": np.int8}
"""What numpy reads straight from the message."""

_PIXELS_A_REQUEST = 4
"""Pixels of all files of one request, in multiples of the bound on one file. Decoding takes some
10 ns a pixel on the thread that all requests share."""


class PixelCodec(Codec):
    """Reads and writes one model's image tensor.

    Args:
        spec: the model's input as resolved against Triton.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._low = torch.tensor(spec.low).view(1, -1, 1, 1)
        self._span = torch.tensor(spec.high).view(1, -1, 1, 1) - self._low
        self._is_unit = spec.low == (0.0,) and spec.high == (1.0,)
        self._ends = list(
            zip(self._low.flatten().numpy(), self._span.flatten().numpy(), strict=True)
        )
        self._is_within = _is_within(spec)

    def samples(self, shape: Sequence[int]) -> int:
        """How many images a tensor of this wire shape holds; see `Codec.samples`."""
        count = super().samples(shape)
        if self._spec.encoded and prod(shape[1:]) != 1:
            raise InvalidTensor(f"input {self._spec.input!r} must hold one file a sample")
        return count

    def decode(self, data: Buffer, shape: Sequence[int]) -> Tensor:
        """The pixels of a raw tensor, (B, C, H, W) float32 in [0, 1], never aliasing `data`.

        Raises:
            InvalidTensor: shape, channels or value range are not the model's; an unreadable file.
        """
        self.samples(shape)
        if self._spec.encoded:
            return self._decode_files(data)
        wire = self._wire(data, shape).transpose(_TO_NCHW[self._batched_layout])
        if wire.shape[1] not in (1, 3):
            raise InvalidTensor(
                f"input {self._spec.input!r} has {wire.shape[1]} channels, expected 1 or 3"
            )
        if 0 in wire.shape[2:]:
            raise InvalidTensor(f"input {self._spec.input!r} has images without pixels")
        channels = self._low.shape[1]
        if channels not in (1, wire.shape[1]):
            raise InvalidTensor(
                f"input {self._spec.input!r} has {wire.shape[1]} channels, expected {channels}"
            )
        x = self._scaled(wire)
        return x if self._is_within else self._bounded(x)

    def encode(self, x: Tensor) -> Buffer:
        """Pixels (B, C, H, W) in [0, 1] as a raw tensor of the wire's datatype and layout.

        Encoded inputs become PNG files, which lose nothing but what eight bits cannot hold.
        """
        spec = self._spec
        if spec.encoded:
            pictures = [images.Picture(pixels, "PNG") for pixels in _to_uint8(x)]
            return frame_strings([images.encode(picture) for picture in pictures])
        y = x if self._is_unit else x * self._span + self._low
        y = self._converted(y)
        if self._batched_layout == "NHWC":
            # Bytes are laid side by side twice as fast by `stack`, anything wider by `contiguous`.
            bytewise = y.element_size() == 1
            y = torch.stack(y.unbind(1), -1) if bytewise else y.permute(0, 2, 3, 1)  # (B, H, W, C)
        return memory_of(y)

    def wire_shape(self, x: Tensor) -> tuple[int, ...]:
        """See `Codec.wire_shape`."""
        batch, channels, height, width = x.shape
        if self._spec.encoded:
            return (batch,) + (1,) * (len(self._spec.shape) - 1)
        sizes = {"N": batch, "C": channels, "H": height, "W": width}
        return tuple(sizes[axis] for axis in self._spec.layout or "NCHW")

    def files(self, data: Buffer) -> list[bytes]:
        """The files in a raw BYTES tensor."""
        return strings(data)

    def edit_file(self, file: bytes, change: Callable[[Tensor], Tensor]) -> bytes:
        """An image file with its pixels changed, at its own size and in its own format.

        Args:
            change: maps (1, C, H, W) float32 in [0, 1] to the same.

        Raises:
            InvalidTensor: the file is not readable.
        """
        picture = images.decode(file, max_pixels=self._spec.max_pixels)
        changed = _to_uint8(change(_from_uint8([picture.pixels])))[0]
        return images.encode(replace(picture, pixels=changed))

    def frame(self, files: Sequence[bytes]) -> bytes:
        """Files as a raw BYTES tensor."""
        return frame_strings(files)

    def _wire(self, data: Buffer, shape: Sequence[int]) -> npt.NDArray[np.generic]:
        """The wire's values, (B, ...): a view of the message where that can be read at its speed.

        numpy reads unaligned memory, which messages are full of; but it converts FP16 slowly, and
        has no BF16.
        """
        full = tuple(shape) if self._spec.has_batch_axis else (1, *shape)
        if self._spec.datatype in ("FP16", "BF16") or 0 in full:
            return self._read(data, shape).to(torch.float32).numpy()
        return np.frombuffer(data, _WIRE[self._spec.datatype]).reshape(full)

    def _scaled(self, wire: npt.NDArray[np.generic]) -> Tensor:
        """(B, C, H, W) of the wire as float32 between black 0 and white 1, in that order in memory.

        Converted, scaled and laid out in one pass, or two where black is not 0. A channel at a time
        where the channels lie together on the wire: twice as fast as all at once.
        """
        x = torch.empty(wire.shape)
        whole = len(self._ends) == 1 and wire.flags.c_contiguous
        channels = [slice(None)] if whole else [slice(c, c + 1) for c in range(wire.shape[1])]
        with np.errstate(all="ignore"):  # what is no number is found out by its range
            for position, channel in enumerate(channels):
                low, span = self._ends[position if len(self._ends) > 1 else 0]
                _scale(wire[:, channel], x.numpy()[:, channel], low, span)
        return x

    @property
    def _batched_layout(self) -> str:
        layout = self._spec.layout or "NCHW"
        return layout if len(layout) == 4 else f"N{layout}"

    def _bounded(self, x: Tensor) -> Tensor:
        """`x` clamped in place."""
        if x.numel():
            low, high = (end.item() for end in torch.aminmax(x))
            if low >= 0 and high <= 1:
                return x
            tolerance = self._spec.tolerance
            # Written so that NaN fails too.
            if not (low >= -tolerance and high <= 1 + tolerance):
                raise InvalidTensor(
                    f"input {self._spec.input!r} has pixel values from {low:.4g} to {high:.4g} "
                    "where 0 to 1 is black to white; check range or mean/std"
                )
        return x.clamp_(0.0, 1.0)

    def _decode_files(self, data: Buffer) -> Tensor:
        """Every file as colour, so that grey ones get the same evidence as all others."""
        size = self._spec.size
        if size is None:
            raise InvalidTensor("encoded inputs need a size")
        left = _PIXELS_A_REQUEST * self._spec.max_pixels
        pixels = []
        for file in strings(data):
            found = images.decode(file, max_pixels=min(self._spec.max_pixels, left)).pixels
            left -= found.shape[0] * found.shape[1]
            scaled = images.resize(found, size)
            pixels.append(np.repeat(scaled, 3, 2) if scaled.shape[2] == 1 else scaled)
        return _from_uint8(pixels) if pixels else torch.empty(0, 3, *size)


def _scale(
    source: npt.NDArray[np.generic], target: npt.NDArray[np.float32], low: float, span: float
) -> None:
    """Write (source - low) / span to the target."""
    # With the type said: numpy 1 would divide bytes in float16.
    if low == 0 and span == 1:
        np.copyto(target, source, casting="unsafe")
    elif low == 0:
        np.divide(source, span, out=target, dtype=np.float32, casting="unsafe")
    else:
        np.subtract(source, low, out=target, dtype=np.float32, casting="unsafe")
        np.divide(target, span, out=target)


def _is_within(spec: ModelSpec) -> bool:
    """Whether no value that the datatype can hold lies outside black and white."""
    least, most = {"UINT8": (0, 255), "INT8": (-128, 127)}.get(spec.datatype, (-inf, inf))
    return max(spec.low) <= least and min(spec.high) >= most


def _from_uint8(pixels: Sequence[images.Pixels]) -> Tensor:
    stacked = torch.from_numpy(np.stack(pixels))  # (B, H, W, C)
    return stacked.permute(0, 3, 1, 2).to(torch.float32).div_(255.0).contiguous()


def _to_uint8(x: Tensor) -> images.Pixels:
    """(B, C, H, W) in [0, 1] -> (B, H, W, C) uint8."""
    y = (x * 255.0).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(y.permute(0, 2, 3, 1).numpy())
