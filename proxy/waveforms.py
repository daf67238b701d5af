"""Wire tensors to waveforms and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from proxy.adapt import ModelSpec
from proxy.case import Buffer
from proxy.codec import Codec
from proxy.errors import InvalidTensor


class WaveformCodec(Codec):
    """Reads and writes audio and other signals over time, with or without a channel axis.

    Args:
        spec: the model's input as resolved against Triton.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        (low,), (high,) = spec.low, spec.high
        self._middle, self._half = (low + high) / 2, (high - low) / 2

    def decode(self, data: Buffer, shape: Sequence[int]) -> Tensor:
        """The waveforms of a raw tensor, (B, C, T) float32 in [-1, 1], never aliasing `data`.

        Raises:
            InvalidTensor: shape or value range are not the model's.
        """
        self.samples(shape)
        x = self._read(data, shape).to(torch.float32)  # (B, T) or (B, C, T)
        if 0 in x.shape[1:]:
            raise InvalidTensor(f"input {self._spec.input!r} has waveforms without samples")
        x = (x if x.ndim == 3 else x[:, None]).sub_(self._middle).div_(self._half)
        if x.numel():
            largest = x.abs().amax().item()
            # Written so that NaN fails too.
            if not largest <= 1 + self._spec.tolerance:
                raise InvalidTensor(
                    f"input {self._spec.input!r} has values up to {largest:.4g} times full scale; "
                    "check range"
                )
        return x.clamp_(-1.0, 1.0)

    def encode(self, x: Tensor) -> Buffer:
        """Waveforms (B, C, T) in [-1, 1] as a raw tensor of the wire's datatype."""
        return self._write(x * self._half + self._middle)

    def wire_shape(self, x: Tensor) -> tuple[int, ...]:
        """See `Codec.wire_shape`."""
        batch, channels, length = x.shape
        layout = self._spec.layout or "NCT"
        if "C" not in layout and channels != 1:
            raise InvalidTensor(f"input {self._spec.input!r} takes 1 channel, not {channels}")
        sizes = {"N": batch, "C": channels, "T": length}
        return tuple(sizes[axis] for axis in layout)
