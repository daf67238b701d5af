"""Requests to measure a model with: the user's own data, or random images of its shape."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from proxy import wire
from proxy.adapt import ModelSpec
from proxy.errors import ConfigError, InvalidTensor
from proxy.kinds import codec_of
from tuning import dataset

REQUESTS = 128
"""Different requests, one sample each, sent in turn."""
_CHANNELS = 3


def requests(spec: ModelSpec, data: Path | None, *, seed: int = 0) -> list[bytes]:
    """Serialised requests of one sample each.

    Args:
        data: the user's samples; None for random images.

    Raises:
        ConfigError: the samples do not fit the model, or its shape does not say what would.
    """
    if spec.ignored_inputs:
        raise ConfigError(
            f"model {spec.model} takes {', '.join(spec.ignored_inputs)} besides the {spec.kind}; "
            "tune can only ask models with one input"
        )
    x = random_images(spec, seed) if data is None else dataset.load(data, spec.kind).x[:REQUESTS]
    codec = codec_of(spec)
    outputs = [spec.output] if spec.output else []
    try:
        codec.samples(codec.wire_shape(x[:1]))
        return [
            wire.build_infer_request(
                spec.model,
                "",
                [(spec.input, spec.datatype, codec.wire_shape(one), codec.encode(one))],
                outputs,
            )
            for one in x.split(1)
        ]
    except (InvalidTensor, ValueError) as error:
        raise ConfigError(f"the {spec.kind}s do not fit model {spec.model}: {error}") from error


def random_images(spec: ModelSpec, seed: int) -> Tensor:
    """Smooth random images with a little grain, (N, C, H, W) float32 in [0, 1].

    White noise would be taken for an attack, and purified every time.

    Raises:
        ConfigError: the model takes no images, or leaves their size open.
    """
    if spec.kind != "image":
        raise ConfigError(f"model {spec.model} takes {spec.kind}s: give some with --data FILE.npz")
    channels, height, width = _size(spec)
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(REQUESTS, channels, 8, 8, generator=generator) * 0.8 + 0.1
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")
    grain = torch.randn(smooth.shape, generator=generator) * (1.5 / 255)
    return ((smooth + grain).clamp(0, 1) * 255).round() / 255


def _size(spec: ModelSpec) -> tuple[int, int, int]:
    if spec.size is not None:
        return (_CHANNELS, *spec.size)
    axes = dict(zip(spec.layout or "", spec.shape, strict=True))
    sizes = axes["C"], axes["H"], axes["W"]
    if min(sizes) < 1:
        raise ConfigError(
            f"model {spec.model} takes images of any size ({list(spec.shape)}): give some with "
            "--data FILE.npz"
        )
    return sizes
