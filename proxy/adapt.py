"""What a model's tensors mean: the configuration completed from Triton's own description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.config import Input, Model
from proxy.errors import ConfigError
from proxy.pb import open_inference_pb2 as pb

Layout = Literal["NCHW", "NHWC", "CHW", "HWC"]

PIXEL_TYPES = ("FP32", "FP16", "BF16", "UINT8", "INT8")
"""Datatypes a pixel tensor may have on the wire."""

_CHANNELS = (1, 3)
_UNBOUNDED_BATCH = 64
"""Largest own query to a model that declares a free batch axis but no max_batch_size."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything needed to read a model's images and answers from the wire."""

    model: str
    input: str
    datatype: str
    layout: Layout | None
    """None for encoded inputs."""
    shape: tuple[int, ...]
    """Declared shape, -1 where free, batch axis included."""
    low: tuple[float, ...]
    """Wire value of pixel 0.0, per channel (one value: all channels)."""
    high: tuple[float, ...]
    """Wire value of pixel 1.0, per channel (one value: all channels)."""
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

    @property
    def has_batch_axis(self) -> bool:
        """Whether the first axis of the wire shape counts samples."""
        return self.encoded or self.layout in ("NCHW", "NHWC")

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
    image = _inspected(name, cfg, sorted(declared))
    input_name = image.name or next(iter(declared))
    tensor = declared[input_name]
    shape = tuple(tensor.shape)
    _check_datatype(name, input_name, tensor.datatype, image)
    max_batch = config.max_batch_size if config is not None else 0
    layout = None if image.encoded else _layout(name, input_name, image, shape, config)
    if layout is None:
        _check_files(name, input_name, shape)
    else:
        _check_axes(name, input_name, image, layout, shape, is_batched=max_batch > 0)
    low, high = _scale(image, tensor.datatype)
    return ModelSpec(
        model=name,
        input=input_name,
        datatype=tensor.datatype,
        layout=layout,
        shape=shape,
        low=low,
        high=high,
        tolerance=image.range_tolerance,
        encoded=image.encoded,
        size=image.size,
        max_pixels=image.max_pixels,
        ignored_inputs=tuple(i.name for i in cfg.inputs if not i.inspect and i.name),
        output=_output(name, cfg, [tensor.name for tensor in metadata.outputs]),
        output_kind=cfg.output.kind,
        batch_limit=_batch_limit(max_batch, layout, image.encoded, shape),
        max_batch=max_batch or None,
        stateful=config is not None and config.HasField("sequence_batching"),
        may_be_stateful=config is None or config.HasField("ensemble_scheduling"),
        decoupled=config is not None and config.model_transaction_policy.decoupled,
        versions=tuple(metadata.versions),
    )


def _inspected(model: str, cfg: Model, declared: Sequence[str]) -> Input:
    """The one input to look at, after checking that every declared input is accounted for."""
    listed = {i.name for i in cfg.inputs if i.name}
    unknown = sorted(listed - set(declared))
    if unknown:
        raise ConfigError(
            f"models.{model}.inputs: Triton declares no input {', '.join(unknown)}; "
            f"it declares {', '.join(declared)}"
        )
    images = [i for i in cfg.inputs if i.inspect] or [Input()]
    image = images[0]
    skipped = {i.name for i in cfg.inputs if not i.inspect}
    if None in skipped:
        raise ConfigError(f"models.{model}.inputs: an entry with inspect: false needs a name")
    if image.name in skipped:
        raise ConfigError(f"models.{model}.inputs: {image.name} is listed twice")
    rest = [n for n in declared if n not in skipped]
    if image.name is None and len(rest) != 1:
        raise ConfigError(
            f"models.{model}.inputs: Triton declares {', '.join(declared)}; name the image and "
            "list every other input with inspect: false"
        )
    unlisted = [n for n in rest if image.name is not None and n != image.name]
    if unlisted:
        raise ConfigError(
            f"models.{model}.inputs: {', '.join(unlisted)} would pass unseen; list it with "
            "inspect: false if that is what you want"
        )
    if image.name is None:
        image = image.model_copy(update={"name": rest[0]})
    return image


def _check_datatype(model: str, tensor: str, datatype: str, image: Input) -> None:
    if image.encoded and datatype != "BYTES":
        raise ConfigError(
            f"models.{model}.inputs: {tensor} is {datatype}, so it cannot be encoded: true"
        )
    if not image.encoded and datatype not in PIXEL_TYPES:
        hint = "; set encoded: true if it holds JPEG or PNG files" if datatype == "BYTES" else ""
        raise ConfigError(
            f"models.{model}.inputs: {tensor} is {datatype}; images may be "
            f"{', '.join(PIXEL_TYPES)}{hint}"
        )


def _layout(
    model: str, tensor: str, image: Input, shape: tuple[int, ...], config: pb.ModelConfig | None
) -> Layout:
    if image.layout is not None:
        if len(image.layout) != len(shape):
            raise ConfigError(
                f"models.{model}.inputs: layout {image.layout} does not fit {tensor}'s shape "
                f"{list(shape)}"
            )
        return image.layout
    batched = len(shape) == 4
    for declared in config.input if config is not None else ():
        if declared.name == tensor and declared.format == pb.ModelInput.FORMAT_NCHW:
            return "NCHW" if batched else "CHW"
        if declared.name == tensor and declared.format == pb.ModelInput.FORMAT_NHWC:
            return "NHWC" if batched else "HWC"
    if len(shape) in (3, 4):
        first, last = shape[-3] in _CHANNELS, shape[-1] in _CHANNELS
        if first != last:
            plain: Layout = "CHW" if first else "HWC"
            return _batched(plain) if batched else plain
    raise ConfigError(
        f"models.{model}.inputs: cannot tell the layout of {tensor} from its shape "
        f"{list(shape)}; set layout: NCHW, NHWC, CHW or HWC"
    )


def _check_axes(
    model: str,
    tensor: str,
    image: Input,
    layout: Layout,
    shape: tuple[int, ...],
    *,
    is_batched: bool,
) -> None:
    """The layout must agree with what Triton declares, or every request would be misread."""
    if is_batched and len(layout) == 3:
        raise ConfigError(
            f"models.{model}.inputs: {tensor} has a batch axis, so layout {layout} does not fit "
            f"its shape {list(shape)}"
        )
    channels = shape[layout.index("C")]
    if channels not in (-1, *_CHANNELS):
        raise ConfigError(
            f"models.{model}.inputs: with layout {layout}, {tensor} of shape {list(shape)} has "
            f"{channels} channels; images have 1 or 3"
        )
    values = len(image.mean or (0,))
    if values != 1 and channels not in (-1, values):
        raise ConfigError(
            f"models.{model}.inputs: {tensor} has {channels} channels, but mean and std have "
            f"{values} values"
        )


def _check_files(model: str, tensor: str, shape: tuple[int, ...]) -> None:
    """Encoded inputs hold one file a sample: (B,) or (B, 1)."""
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] not in (-1, 1)):
        raise ConfigError(
            f"models.{model}.inputs: {tensor} has shape {list(shape)}; encoded images come one a "
            "sample, as (B) or (B, 1)"
        )


def _batched(layout: Layout) -> Layout:
    return "NCHW" if layout == "CHW" else "NHWC"


def _scale(image: Input, datatype: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if image.mean is not None and image.std is not None:
        low = tuple(-m / s for m, s in zip(image.mean, image.std, strict=True))
        high = tuple((1 - m) / s for m, s in zip(image.mean, image.std, strict=True))
        return low, high
    default = {"UINT8": (0.0, 255.0), "INT8": (-128.0, 127.0)}.get(datatype, (0.0, 1.0))
    low_high = image.range or default
    return (low_high[0],), (low_high[1],)


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
    if (encoded or layout in ("NCHW", "NHWC")) and shape and shape[0] == -1:
        return _UNBOUNDED_BATCH
    return 1
