"""The codec of each kind of input."""

from __future__ import annotations

from proxy.adapt import ModelSpec
from proxy.codec import Codec
from proxy.config import InputKind
from proxy.tensors import PixelCodec
from proxy.vectors import VectorCodec
from proxy.waveforms import WaveformCodec

_CODECS: dict[InputKind, type[Codec]] = {
    "image": PixelCodec,
    "vector": VectorCodec,
    "waveform": WaveformCodec,
}


def codec_of(spec: ModelSpec) -> Codec:
    """The codec of a model's input."""
    return _CODECS[spec.kind](spec)
