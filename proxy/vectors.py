"""Wire tensors to rows of numbers and back."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from proxy.case import Buffer
from proxy.codec import Codec
from proxy.errors import InvalidTensor


class VectorCodec(Codec):
    """Reads and writes rows of numbers: table rows, embeddings, any floating-point tensor.

    All axes but the batch are laid end to end. There is no range to hold the values against; NaN
    and infinities, where the model's policy lets them come this far, are left in, so that the
    detectors have no score for such a row.
    """

    def decode(self, data: Buffer, shape: Sequence[int]) -> Tensor:
        """The rows of a raw tensor, (B, D) float32, never aliasing `data`.

        Raises:
            InvalidTensor: the shape is not the model's, or a finite FP64 value is beyond FP32.
        """
        self.samples(shape)
        wide = self._read(data, shape).flatten(1)
        x = wide.to(torch.float32)
        if wide.dtype is torch.float64 and bool((wide.isfinite() & ~x.isfinite()).any()):
            raise InvalidTensor(f"input {self._spec.input!r} has values beyond 3.4e38")
        return x

    def encode(self, x: Tensor) -> Buffer:
        """Rows (B, D) as a raw tensor of the wire's datatype."""
        return self._write(x)

    def wire_shape(self, x: Tensor) -> tuple[int, ...]:
        """See `Codec.wire_shape`."""
        spec = self._spec
        values = spec.shape[1:] if spec.has_batch_axis else spec.shape
        if x.shape[1] != prod(values):
            raise InvalidTensor(
                f"input {spec.input!r} takes {prod(values)} values a sample, not {x.shape[1]}"
            )
        return (len(x), *values) if spec.has_batch_axis else values
