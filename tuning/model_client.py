"""Asks a model about batches of images through Triton, as the proxy's own queries do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from proxy import rpc, wire
from proxy.adapt import ModelSpec
from proxy.errors import ConfigError
from proxy.evidence import read_output
from proxy.tensors import PixelCodec
from proxy.upstream import Upstream

_CONCURRENCY = 4
_TIMEOUT_S = 60.0
_BATCH = 64


class ModelClient:
    """A model's answers, (N, C, H, W) pixels in, (N, K) out.

    Args:
        spec: the model's tensors; models with further inputs cannot be asked.

    Raises:
        ConfigError: the model needs inputs besides the image.
    """

    def __init__(self, upstream: Upstream, spec: ModelSpec) -> None:
        if spec.ignored_inputs:
            raise ConfigError(
                f"model {spec.model} takes {', '.join(spec.ignored_inputs)} besides the image; "
                "calibration can only ask models with one input"
            )
        self._upstream = upstream
        self._spec = spec
        self._codec = PixelCodec(spec)

    async def answers(self, x: Tensor, on_progress: Callable[[int], None]) -> Tensor:
        """The model's class scores for all images, in order.

        Raises:
            ConfigError: the answers hold no class scores.
            ProxyError: the model cannot be asked.
        """
        size = min(self._spec.batch_limit, _BATCH)
        limit = asyncio.Semaphore(_CONCURRENCY)

        async def ask(chunk: Tensor) -> Tensor:
            async with limit:
                rows = await self._ask(chunk)
            on_progress(len(chunk))
            return rows

        return torch.cat(await asyncio.gather(*(ask(chunk) for chunk in x.split(size))))

    def as_seen(self, x: Tensor) -> Tensor:
        """The images as the model sees them: rounded by the wire's datatype."""
        if self._spec.encoded:
            return x
        return self._codec.decode(self._codec.encode(x), self._shape(x))

    async def _ask(self, x: Tensor) -> Tensor:
        spec = self._spec
        data = wire.build_infer_request(
            spec.model,
            "",
            [(spec.input, spec.datatype, self._shape(x), self._codec.encode(x))],
            [spec.output or ""],
        )
        answer = await self._upstream.call(rpc.INFER.path, data, timeout_s=_TIMEOUT_S)
        output = read_output(answer.data, spec, len(x))
        if output is None:
            raise ConfigError(
                f"models.{spec.model}.output: {spec.output} holds no class scores "
                "(batch, classes >= 2) as floating point; name another output or set kind: none"
            )
        return torch.from_numpy(np.ascontiguousarray(output))

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        batch, channels, height, width = x.shape
        if self._spec.encoded:
            return (batch,) + (1,) * (len(self._spec.shape) - 1)
        full = {
            "NCHW": (batch, channels, height, width),
            "NHWC": (batch, height, width, channels),
            "CHW": (channels, height, width),
            "HWC": (height, width, channels),
        }
        return full[self._spec.layout or "NCHW"]
