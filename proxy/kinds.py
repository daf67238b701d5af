"""What differs between kinds of input: the codec, and which parts can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detectors import DETECTORS, Detector
from proxy.adapt import ModelSpec
from proxy.codec import Codec
from proxy.config import InputKind
from proxy.errors import ConfigError
from proxy.tensors import PixelCodec
from proxy.vectors import VectorCodec
from proxy.waveforms import WaveformCodec
from purifiers import PURIFIERS, Purifier
from purifiers.base import Kind

_CODECS: dict[InputKind, type[Codec]] = {
    "image": PixelCodec,
    "vector": VectorCodec,
    "waveform": WaveformCodec,
}


def codec_of(spec: ModelSpec) -> Codec:
    """The codec of a model's input."""
    return _CODECS[spec.kind](spec)


def check_detectors(kind: InputKind, chosen: Sequence[Detector]) -> None:
    """Raise ConfigError if a detector, or a view it wants, does not take this kind of input."""
    for detector in chosen:
        _check(kind, detector.name, detector.kinds, "detectors", DETECTORS)
        for view in detector.views:
            _check_purifier(kind, f"{detector.name}: the view {view.name}", view)


def check_purifiers(kind: InputKind, chosen: Sequence[Purifier]) -> None:
    """Raise ConfigError if a purifier does not take this kind of input."""
    for purifier in chosen:
        _check_purifier(kind, purifier.name, purifier)


def _check_purifier(kind: InputKind, what: str, purifier: Purifier) -> None:
    for member in purifier.members:
        _check(kind, what, member.kinds, "purifiers", PURIFIERS)


def _check(
    kind: InputKind,
    what: str,
    kinds: frozenset[Kind],
    title: str,
    table: Mapping[str, type[Detector] | type[Purifier]],
) -> None:
    if Kind(kind) in kinds:
        return
    fitting = ", ".join(name for name, part in table.items() if Kind(kind) in part.kinds)
    takes = " and ".join(sorted(f"{each}s" for each in kinds))
    raise ConfigError(f"{what} takes {takes}, not {kind}s; {title} that do: {fitting}")
