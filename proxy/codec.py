"""What every codec does: wire shapes to samples, raw bytes to the wire's own datatype and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from proxy.adapt import ModelSpec
from proxy.case import Buffer
from proxy.errors import InvalidTensor

_NUMPY: dict[str, type[np.generic]] = {
    "FP64": np.float64,
    "FP32": np.float32,
    "FP16": np.float16,
    "UINT8": np.uint8,
    "INT8": np.int8,
    "INT16": np.int16,
}
"""All but BF16, which numpy has not."""
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
    def encode(self, x: Tensor) -> Buffer:
        """Samples as a raw tensor of the wire's datatype and order; the inverse of `decode`.

        The result may be a view of the memory of `x`, which must not be written to while it lives.
        """

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

    def _write(self, y: Tensor) -> Buffer:
        """Wire values in the order of the wire; what the datatype cannot hold is bent."""
        return memory_of(self._converted(y))

    def _converted(self, y: Tensor) -> Tensor:
        """Wire values in the wire's datatype; `y` itself where that is float32."""
        dtype = _TORCH[self._spec.datatype]
        if dtype in (torch.float16, torch.bfloat16):
            y = y.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
        elif not dtype.is_floating_point:
            # numpy converts four times as fast here: 18 us against 81 us for 3x224x224 (torch
            # 2.13, numpy 1.26; `python -m loadtests.device` shows the whole).
            whole = y.round().clamp_(torch.iinfo(dtype).min, torch.iinfo(dtype).max).numpy()
            with np.errstate(invalid="ignore"):  # NaN becomes any value, as in torch
                return torch.from_numpy(whole.astype(_NUMPY[self._spec.datatype]))
        return y.to(dtype)


def memory_of(y: Tensor) -> memoryview:
    """The bytes of a tensor in the order of its axes; keeps the tensor's memory alive.

    A view where the tensor lies in that order, so that the message it goes into makes the only
    copy.
    """
    return y.contiguous().flatten().view(torch.uint8).numpy().data.toreadonly()
