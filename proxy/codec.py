"""What every codec does: wire shapes to samples, raw bytes to the wire's own datatype and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from proxy.adapt import ModelSpec
from proxy.case import Buffer
from proxy.errors import InvalidTensor

_TORCH = {
    "FP64": torch.float64,
    "FP32": torch.float32,
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT16": torch.int16,
}


class Codec(ABC):
    """Reads and writes the tensor of one model that is scored.

    Args:
        spec: the model's input as resolved against Triton.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    def samples(self, shape: Sequence[int]) -> int:
        """How many samples a tensor of this wire shape holds.

        Raises:
            InvalidTensor: the shape is not one the model takes.
        """
        spec = self._spec
        if len(shape) != len(spec.shape) or any(
            wanted not in (-1, given) for wanted, given in zip(spec.shape, shape, strict=True)
        ):
            raise InvalidTensor(
                f"input {spec.input!r} has shape {list(shape)}, expected {list(spec.shape)}"
            )
        if not spec.has_batch_axis:
            return 1
        if spec.max_batch is not None and shape[0] > spec.max_batch:
            raise InvalidTensor(
                f"input {spec.input!r} has {shape[0]} samples, more than {spec.max_batch}"
            )
        return shape[0]

    @abstractmethod
    def decode(self, data: Buffer, shape: Sequence[int]) -> Tensor:
        """The samples of a raw tensor as evidence, batch first, float32, never aliasing `data`.

        Raises:
            InvalidTensor: shape or values are not the model's.
        """

    @abstractmethod
    def encode(self, x: Tensor) -> bytes:
        """Samples as a raw tensor of the wire's datatype and order; the inverse of `decode`."""

    @abstractmethod
    def wire_shape(self, x: Tensor) -> tuple[int, ...]:
        """The shape that samples have on the wire; one sample where there is no batch axis.

        Raises:
            InvalidTensor: they are not such as the model takes.
        """

    def _read(self, data: Buffer, shape: Sequence[int]) -> Tensor:
        """(B, ...) copy of the wire's values in their own datatype."""
        full = tuple(shape) if self._spec.has_batch_axis else (1, *shape)
        dtype = _TORCH[self._spec.datatype]
        if 0 in full:
            return torch.empty(full, dtype=dtype)
        # A copy of our own, because a view of the message is read-only and may be unaligned.
        return torch.frombuffer(bytearray(data), dtype=dtype).view(full)

    def _write(self, y: Tensor) -> bytes:
        """Wire values in the order of the wire as bytes; what the datatype cannot hold is bent."""
        dtype = _TORCH[self._spec.datatype]
        if dtype in (torch.float16, torch.bfloat16):
            y = y.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
        elif not dtype.is_floating_point:
            y = y.round().clamp(torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        return y.to(dtype).contiguous().flatten().view(torch.uint8).numpy().tobytes()
