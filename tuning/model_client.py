"""Asks a model about batches of samples through Triton, as the proxy's own queries do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import torch
from torch import Tensor

from proxy import rpc, wire
from proxy.adapt import ModelSpec, resolve
from proxy.answers import read_output
from proxy.config import Config, Model
from proxy.defences import describe
from proxy.errors import ConfigError, InvalidTensor, ProxyError
from proxy.kinds import codec_of
from proxy.upstream import Upstream

_CONCURRENCY = 4
_TIMEOUT_S = 60.0
_BATCH = 64


class ModelClient:
    """A model's answers: samples in, batch first, as detectors see them; (N, K) out.

    Args:
        spec: the model's tensors; models with further inputs cannot be asked.

    Raises:
        ConfigError: the model needs inputs besides the one inspected.
    """

    def __init__(self, upstream: Upstream, spec: ModelSpec) -> None:
        if spec.ignored_inputs:
            raise ConfigError(
                f"model {spec.model} takes {', '.join(spec.ignored_inputs)} besides the "
                f"{spec.kind}; calibration can only ask models with one input"
            )
        self._upstream = upstream
        self._spec = spec
        self._codec = codec_of(spec)

    async def answers(self, x: Tensor, on_progress: Callable[[int], None]) -> Tensor:
        """The model's class scores for all samples, in order.

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

    async def _ask(self, x: Tensor) -> Tensor:
        spec = self._spec
        data = wire.build_infer_request(
            spec.model,
            "",
            [(spec.input, spec.datatype, self._codec.wire_shape(x), self._codec.encode(x))],
            [spec.output or ""],
        )
        answer = await self._upstream.call(rpc.INFER.path, data, timeout_s=_TIMEOUT_S)
        output = read_output(answer.data, spec, len(x))
        if output is None:
            raise ConfigError(
                f"models.{spec.model}.output: {spec.output} holds no class scores "
                "(batch, classes >= 2) as floating point; name another output or set kind: none"
            )
        return torch.from_numpy(output.copy())  # a view of the message is read-only


def as_seen(spec: ModelSpec, x: Tensor) -> Tensor:
    """The samples as the proxy will read them: rounded by the wire's datatype, files resized.

    Raises:
        ConfigError: they do not fit the model's input.
    """
    codec = codec_of(spec)
    chunks = x.split(min(spec.batch_limit, _BATCH))
    try:
        return torch.cat([codec.decode(codec.encode(c), codec.wire_shape(c)) for c in chunks])
    except InvalidTensor as error:
        raise ConfigError(f"the {spec.kind}s do not fit model {spec.model}: {error}") from error


async def ask_spec(config: Config, name: str, model: Model) -> ModelSpec:
    """What the model's tensors mean, by the configuration and by what Triton says of it.

    Raises:
        ConfigError: Triton cannot be asked; or it contradicts the configuration.
    """
    upstream = Upstream(
        config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
    )
    try:
        return resolve(name, model, *await describe(upstream, name))
    except ProxyError as error:
        raise ConfigError(
            f"the model {name} cannot be asked at {config.upstream}: {error}; "
            "is Triton running there?"
        ) from error
    finally:
        await upstream.close()
