"""Where the axes of an input are and what its values mean, by what it holds.

Every rule for one kind of input is here; a contradiction between the configuration and Triton's own
description is told with the field to set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.config import Input, InputKind, Layout
from proxy.errors import ConfigError
from proxy.pb import open_inference_pb2 as pb

_TYPES: dict[InputKind, tuple[str, ...]] = {
    "image": ("FP32", "FP16", "BF16", "UINT8", "INT8"),
    "waveform": ("FP32", "FP16", "INT16"),
    "vector": ("FP32", "FP16", "BF16", "FP64"),
}
"""Datatypes of each kind on the wire, besides files in BYTES."""

_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class Subject:
    """An input as Triton describes it."""

    model: str
    tensor: str
    datatype: str
    shape: tuple[int, ...]
    is_batched: bool
    """Whether the first axis counts samples, by the model's configuration."""
    format: int = pb.ModelInput.FORMAT_NONE
    """Order of the axes, where the model's configuration says it."""

    def error(self, text: str) -> ConfigError:
        """What is wrong, with the place to mend it."""
        return ConfigError(f"models.{self.model}.inputs: {text}")


def layout_of(subject: Subject, wanted: Input) -> Layout | None:
    """The order of the axes; None for encoded inputs.

    Raises:
        ConfigError: datatype or shape are not of this kind of input, or leave the order open.
    """
    _check_datatype(subject, wanted)
    if wanted.encoded:
        _check_files(subject)
        return None
    # The layout must agree with what Triton declares, or every request would be misread.
    order = {"image": _image, "vector": _vector, "waveform": _waveform}[wanted.kind]
    layout = order(subject, wanted.layout)
    if subject.is_batched and not layout.startswith("N"):
        raise subject.error(
            f"{subject.tensor} has a batch axis, so layout {layout} does not fit its shape "
            f"{list(subject.shape)}"
        )
    if wanted.kind == "image":
        _check_channels(subject, wanted, layout)
    if wanted.kind == "vector":
        _check_length(subject, layout)
    return layout


def scale_of(wanted: Input, datatype: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The wire values of the two ends of the range, one each or one a channel.

    Black and white for images, full scale for waveforms; vectors have none and get (0, 1).
    """
    if wanted.mean is not None and wanted.std is not None:
        low = tuple(-m / s for m, s in zip(wanted.mean, wanted.std, strict=True))
        high = tuple((1 - m) / s for m, s in zip(wanted.mean, wanted.std, strict=True))
        return low, high
    # Sound files put full scale at 2^15, which no sample reaches, so that silence is exactly 0.
    default = {"UINT8": (0.0, 255.0), "INT8": (-128.0, 127.0), "INT16": (-32768.0, 32768.0)}.get(
        datatype, (-1.0, 1.0) if wanted.kind == "waveform" else (0.0, 1.0)
    )
    low_high = wanted.range or default
    return (low_high[0],), (low_high[1],)


def _check_datatype(subject: Subject, wanted: Input) -> None:
    tensor, datatype = subject.tensor, subject.datatype
    if wanted.encoded and datatype != "BYTES":
        raise subject.error(f"{tensor} is {datatype}, so it cannot be encoded: true")
    types = _TYPES[wanted.kind]
    if not wanted.encoded and datatype not in types:
        files = datatype == "BYTES" and wanted.kind == "image"
        hint = "; set encoded: true if it holds JPEG or PNG files" if files else ""
        raise subject.error(
            f"{tensor} is {datatype}; {wanted.kind}s may be {', '.join(types)}{hint}"
        )


def _image(subject: Subject, wanted: Layout | None) -> Layout:
    tensor, shape = subject.tensor, subject.shape
    if wanted is not None:
        return _fitting(subject, wanted, rank=len(wanted))
    batched = len(shape) == 4
    if subject.format == pb.ModelInput.FORMAT_NCHW:
        return "NCHW" if batched else "CHW"
    if subject.format == pb.ModelInput.FORMAT_NHWC:
        return "NHWC" if batched else "HWC"
    if len(shape) in (3, 4):
        first, last = shape[-3] in _CHANNELS, shape[-1] in _CHANNELS
        if first != last:
            plain: Sequence[Layout] = ("CHW", "NCHW") if first else ("HWC", "NHWC")
            return plain[batched]
    raise subject.error(
        f"cannot tell the layout of {tensor} from its shape {list(shape)}; set layout: NCHW, NHWC, "
        "CHW or HWC"
    )


def _waveform(subject: Subject, wanted: Layout | None) -> Layout:
    """From the number of axes; where there are two, the first counts samples unless it is fixed."""
    shape = subject.shape
    if wanted is not None:
        return _fitting(subject, wanted, rank=len(wanted))
    if len(shape) == 3:
        return "NCT"
    if len(shape) == 2:
        return "NT" if subject.is_batched or shape[0] == -1 else "CT"
    if len(shape) == 1 and not subject.is_batched:
        return "T"
    raise subject.error(
        f"{subject.tensor} has shape {list(shape)}; waveforms are (batch, samples), "
        "(batch, channels, samples), or either without the batch"
    )


def _vector(subject: Subject, wanted: Layout | None) -> Layout:
    if wanted is not None:
        return _fitting(subject, wanted, rank=None)
    is_free = len(subject.shape) > 1 and subject.shape[0] == -1
    return "ND" if subject.is_batched or is_free else "D"


def _fitting(subject: Subject, layout: Layout, *, rank: int | None) -> Layout:
    """The configured layout, if it has as many axes as Triton declares."""
    fits = len(subject.shape) == rank if rank else len(subject.shape) >= len(layout)
    if not fits:
        raise subject.error(
            f"layout {layout} does not fit {subject.tensor}'s shape {list(subject.shape)}"
        )
    return layout


def _check_channels(subject: Subject, wanted: Input, layout: Layout) -> None:
    tensor, shape = subject.tensor, subject.shape
    channels = shape[layout.index("C")]
    if channels not in (-1, *_CHANNELS):
        raise subject.error(
            f"with layout {layout}, {tensor} of shape {list(shape)} has {channels} channels; "
            "images have 1 or 3"
        )
    values = len(wanted.mean or (0,))
    if values != 1 and channels not in (-1, values):
        raise subject.error(
            f"{tensor} has {channels} channels, but mean and std have {values} values"
        )


def _check_length(subject: Subject, layout: Layout) -> None:
    values = subject.shape[1:] if layout == "ND" else subject.shape
    if not values or any(size < 1 for size in values):
        raise subject.error(
            f"{subject.tensor} has shape {list(subject.shape)}; vectors have the same number of "
            "values in every sample, so all axes but the batch must be fixed in the model's "
            "configuration"
        )


def _check_files(subject: Subject) -> None:
    """Encoded inputs hold one file a sample: (B,) or (B, 1)."""
    shape = subject.shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] not in (-1, 1)):
        raise subject.error(
            f"{subject.tensor} has shape {list(shape)}; encoded images come one a sample, as (B) "
            "or (B, 1)"
        )
