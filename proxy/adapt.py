"""What a model's tensors mean: the configuration completed from Triton's own description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from proxy import layouts
from proxy.config import Input, InputKind, Layout, Model
from proxy.errors import ConfigError
from proxy.pb import open_inference_pb2 as pb

_UNBOUNDED_BATCH = 64
"""Largest own query to a model that declares a free batch axis but no max_batch_size."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything needed to read a model's inputs and answers from the wire."""

    model: str
    input: str
    datatype: str
    layout: Layout | None
    """None for encoded inputs."""
    shape: tuple[int, ...]
    """Declared shape, -1 where free, batch axis included."""
    low: tuple[float, ...]
    """Wire value of pixel 0.0, per channel (one value: all channels); of a waveform's -1.0."""
    high: tuple[float, ...]
    """Wire value of pixel 1.0, per channel (one value: all channels); of a waveform's 1.0."""
    tolerance: float
    encoded: bool
    size: tuple[int, int] | None
    max_pixels: int
    ignored_inputs: tuple[str, ...]
    output: str | None
    """None when the model has no class scores to look at."""
    output_kind: Literal["logits", "probabilities", "none"]
    batch_limit: int
    """Most samples in one query of the proxy's own; 1 where the model takes no batches."""
    max_batch: int | None
    """Most samples Triton takes in one request; None where it names no bound."""
    stateful: bool
    """Triton says that the model keeps state over the requests of a sequence."""
    may_be_stateful: bool
    """It may, for all that is known: an ensemble (its steps may), or a hidden configuration."""
    decoupled: bool
    versions: tuple[str, ...]
    """Those Triton serves."""
    kind: InputKind = "image"

    @property
    def has_batch_axis(self) -> bool:
        """Whether the first axis of the wire shape counts samples."""
        return self.encoded or (self.layout or "").startswith("N")

    @property
    def can_query(self) -> bool:
        """Whether the proxy may send the model queries of its own: no state, one answer each."""
        return not (self.stateful or self.decoupled)


def resolve(
    name: str, cfg: Model, metadata: pb.ModelMetadataResponse, config: pb.ModelConfig | None
) -> ModelSpec:
    """Complete a model's configuration from Triton's metadata and (if allowed) its config.

    Raises:
        ConfigError: something is missing or contradicts what Triton says; names the field to set.
    """
    declared = {tensor.name: tensor for tensor in metadata.inputs}
    wanted = _inspected(name, cfg, sorted(declared))
    input_name = wanted.name or next(iter(declared))
    tensor = declared[input_name]
    max_batch = config.max_batch_size if config is not None else 0
    subject = layouts.Subject(
        name,
        input_name,
        tensor.datatype,
        tuple(tensor.shape),
        is_batched=max_batch > 0,
        format=_format(input_name, config),
    )
    layout = layouts.layout_of(subject, wanted)
    low, high = layouts.scale_of(wanted, tensor.datatype)
    return ModelSpec(
        model=name,
        input=input_name,
        datatype=tensor.datatype,
        layout=layout,
        shape=subject.shape,
        low=low,
        high=high,
        tolerance=wanted.range_tolerance,
        encoded=wanted.encoded,
        size=wanted.size,
        max_pixels=wanted.max_pixels,
        ignored_inputs=tuple(i.name for i in cfg.inputs if not i.inspect and i.name),
        output=_output(name, cfg, [tensor.name for tensor in metadata.outputs]),
        output_kind=cfg.output.kind,
        batch_limit=_batch_limit(max_batch, layout, wanted.encoded, subject.shape),
        max_batch=max_batch or None,
        stateful=config is not None and config.HasField("sequence_batching"),
        may_be_stateful=config is None or config.HasField("ensemble_scheduling"),
        decoupled=config is not None and config.model_transaction_policy.decoupled,
        versions=tuple(metadata.versions),
        kind=wanted.kind,
    )


def _format(tensor: str, config: pb.ModelConfig | None) -> int:
    """What Triton says of the order of an input's axes."""
    declared = config.input if config is not None else ()
    return next((i.format for i in declared if i.name == tensor), pb.ModelInput.FORMAT_NONE)


def _inspected(model: str, cfg: Model, declared: Sequence[str]) -> Input:
    """The one input to look at, after checking that every declared input is accounted for."""
    listed = {i.name for i in cfg.inputs if i.name}
    unknown = sorted(listed - set(declared))
    if unknown:
        raise ConfigError(
            f"models.{model}.inputs: Triton declares no input {', '.join(unknown)}; "
            f"it declares {', '.join(declared)}"
        )
    wanted = next((i for i in cfg.inputs if i.inspect), Input())
    skipped = {i.name for i in cfg.inputs if not i.inspect}
    if None in skipped:
        raise ConfigError(f"models.{model}.inputs: an entry with inspect: false needs a name")
    if wanted.name in skipped:
        raise ConfigError(f"models.{model}.inputs: {wanted.name} is listed twice")
    rest = [n for n in declared if n not in skipped]
    if wanted.name is None and len(rest) != 1:
        raise ConfigError(
            f"models.{model}.inputs: Triton declares {', '.join(declared)}; name the {wanted.kind} "
            "and list every other input with inspect: false"
        )
    unlisted = [n for n in rest if wanted.name is not None and n != wanted.name]
    if unlisted:
        raise ConfigError(
            f"models.{model}.inputs: {', '.join(unlisted)} would pass unseen; list it with "
            "inspect: false if that is what you want"
        )
    if wanted.name is None:
        wanted = wanted.model_copy(update={"name": rest[0]})
    return wanted


def _output(model: str, cfg: Model, declared: Sequence[str]) -> str | None:
    if cfg.output.kind == "none":
        return None
    if cfg.output.name is not None:
        if cfg.output.name not in declared:
            raise ConfigError(
                f"models.{model}.output: Triton declares no output {cfg.output.name}; it declares "
                f"{', '.join(declared)}"
            )
        return cfg.output.name
    if len(declared) != 1:
        raise ConfigError(
            f"models.{model}.output: Triton declares {', '.join(declared)}; set name to the one "
            "that holds the class scores, or kind: none"
        )
    return declared[0]


def _batch_limit(
    max_batch: int, layout: Layout | None, encoded: bool, shape: tuple[int, ...]
) -> int:
    if max_batch > 0:
        return max_batch
    if (encoded or (layout or "").startswith("N")) and shape and shape[0] == -1:
        return _UNBOUNDED_BATCH
    return 1
