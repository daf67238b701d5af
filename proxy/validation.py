"""What a request must be before anything is forwarded: whole, consistent, and as Triton takes it.

Only the request itself is looked at; what the model expects is known elsewhere. Servers have been
crashed and read by requests whose parts contradict each other (triton-inference-server #7171,
CVE-2025-23319 and its kin), so every part is checked against every other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from proxy.datatypes import (
    DATATYPES,
    INT64_MAX,
    MAX_STRINGS,
    TYPED_FIELDS,
    Datatype,
    element_count,
    raw_from_typed,
    string_spans,
)
from proxy.errors import InvalidRequest, InvalidTensor
from proxy.fields import Buffer
from proxy.pb import open_inference_pb2 as pb
from proxy.wire import InferRequest, Tensor, quoted

NonFinite = Literal["refuse", "pass"]

# A model's name is a folder of the repository, so it must not climb out of it or hide in it
# (CVE-2026-24208); 255 is the longest file name.
_MODEL_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_MODEL_VERSION = re.compile(r"[0-9]{0,19}")

_RESERVED_REGION = "triton_python_backend_shm_region_"
"""Regions of the server's own; naming one has been a way into its memory (CVE-2025-23319)."""

_KINDS_OF: Mapping[str, frozenset[str]] = {
    "sequence_id": frozenset({"int64_param", "string_param"}),
    "sequence_start": frozenset({"bool_param"}),
    "sequence_end": frozenset({"bool_param"}),
    "priority": frozenset({"int64_param", "uint64_param"}),
    "timeout": frozenset({"int64_param"}),
    "triton_enable_empty_final_response": frozenset({"bool_param"}),
}
"""The request parameters with a meaning, and the types Triton takes them in."""

_CUSTOM_KINDS = frozenset({"bool_param", "int64_param", "string_param", "double_param"})

_EXPONENT_BITS = {"FP16": 0x7C00, "BF16": 0x7F80}
"""All ones in an infinity or a NaN. Tested as integers: 36 us for 300,000 values, where numpy's
isfinite on float16 takes 510 us."""


def validate(request: InferRequest, *, non_finite: NonFinite) -> None:
    """Raise unless the request is one that can be inspected and forwarded.

    Args:
        request: as read from the wire.
        non_finite: what NaN and infinities in floating-point tensors mean. Tensors in shared
            memory are not in the message and so not looked at.

    Raises:
        InvalidRequest: the request contradicts itself or what Triton takes.
        InvalidTensor: one tensor does; the text names it.
    """
    head = request.head
    validate_model(head.model_name, head.model_version)
    for key in head.parameters:
        _check_text(key)
        _check_parameter(key, head.parameters[key])
    _check_alignment(request)
    names = set()
    for tensor, item in zip(request.tensors, head.inputs, strict=True):
        if not tensor.name or tensor.name in names:
            what = "has no name" if not tensor.name else "comes twice"
            raise InvalidTensor(f"input {tensor.index} {quoted(tensor.name)} {what}")
        names.add(tensor.name)
        _check_text(tensor.name)
        try:
            _check_input(tensor, item.parameters, non_finite)
        except InvalidTensor as error:
            raise InvalidTensor(f"input {quoted(tensor.name)}: {error}") from None
    for output in head.outputs:
        _check_text(output.name)
        try:
            _check_output(output.parameters)
        except InvalidTensor as error:
            raise InvalidTensor(f"requested output {quoted(output.name)}: {error}") from None


def validate_model(name: str, version: str) -> None:
    """Raise InvalidRequest unless name and version can only mean a model in the repository."""
    if not _MODEL_NAME.fullmatch(name):
        raise InvalidRequest(
            f"model name {quoted(name)} is not one: letters, digits, '.', '_' and '-', "
            "not starting with '.' or '-', without '..', at most 255 characters"
        )
    if not _MODEL_VERSION.fullmatch(version) or (version and int(version) > INT64_MAX):
        raise InvalidRequest(f"model version {quoted(version)} is not a number or empty")


def _check_text(name: str) -> None:
    """The server keeps names as C strings: to it, `image` and NUL and anything is `image`."""
    if "\0" in name:
        raise InvalidRequest(f"the name {quoted(name)} has a NUL, where the server would end it")


def _check_parameter(key: str, value: pb.InferParameter) -> None:
    kind = value.WhichOneof("parameter_choice")
    allowed = _KINDS_OF.get(key)
    if allowed is None:
        if key.startswith("triton_"):
            raise InvalidRequest(f"parameter {quoted(key)} uses the server's reserved prefix")
        allowed = _CUSTOM_KINDS
    if kind not in allowed:
        raise InvalidRequest(
            f"parameter {quoted(key)} must be {' or '.join(sorted(allowed))}, not {kind or 'unset'}"
        )
    if key == "priority" and value.int64_param < 0:
        raise InvalidRequest("parameter 'priority' is negative")


def _check_alignment(request: InferRequest) -> None:
    """Every raw entry must belong to exactly one input, and no input may have two sources."""
    raw = len(request.pieces)
    if not raw:
        return
    inline = [tensor for tensor in request.tensors if tensor.shared_memory is None]
    for tensor in inline:
        if tensor.contents is not None:
            raise InvalidTensor(
                f"input {quoted(tensor.name)} has typed contents beside raw_input_contents"
            )
    if raw != len(inline):
        raise InvalidRequest(
            f"{raw} raw_input_contents for {len(inline)} inputs that are not in shared memory"
        )


def _check_input(
    tensor: Tensor, parameters: Mapping[str, pb.InferParameter], non_finite: NonFinite
) -> None:
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None:
        raise InvalidTensor(f"unknown datatype {quoted(tensor.datatype)}")
    count = element_count(tensor.shape)
    _check_shared_memory(parameters)
    if tensor.shared_memory is not None:
        if tensor.contents is not None:
            raise InvalidTensor("has contents although it is in shared memory")
        if datatype.size:
            _check_size(datatype, count, tensor.shape, tensor.shared_memory.byte_size)
        return
    if tensor.contents is not None:
        raw = _check_typed(datatype, count, tensor.contents)
    elif tensor.data is not None:
        raw = tensor.data
        _check_raw(datatype, count, tensor.shape, raw)
    else:
        raise InvalidTensor("has no data")
    if non_finite == "refuse" and not is_finite(datatype, raw):
        raise InvalidTensor("has a value that is NaN or infinite")


def _check_size(datatype: Datatype, count: int, shape: tuple[int, ...], size: int) -> None:
    if size != count * datatype.size:
        raise InvalidTensor(
            f"{size} bytes, but shape {list(shape)} of {datatype.name} takes "
            f"{count * datatype.size}"
        )


def _check_raw(datatype: Datatype, count: int, shape: tuple[int, ...], raw: memoryview) -> None:
    if datatype.size:
        _check_size(datatype, count, shape, len(raw))
        return
    # The count is compared before the walk, so that a short message cannot ask for a long one.
    if count > MAX_STRINGS:
        raise InvalidTensor(f"{count} elements, more than {MAX_STRINGS} in a BYTES tensor")
    found = sum(1 for _ in string_spans(raw))
    if found != count:
        raise InvalidTensor(f"{found} elements for shape {list(shape)}")


def _check_typed(datatype: Datatype, count: int, contents: pb.InferTensorContents) -> Buffer:
    """Check typed values; returns them in raw form where a look at the values is needed."""
    if not datatype.field:
        raise InvalidTensor(f"{datatype.name} has no typed form; send it raw")
    for field in TYPED_FIELDS:
        if field != datatype.field and len(getattr(contents, field)):
            raise InvalidTensor(f"{datatype.name} values belong in {datatype.field}, not {field}")
    found = len(getattr(contents, datatype.field))
    if found != count:
        raise InvalidTensor(f"{found} typed values where the shape has {count} elements")
    # The narrow integers have a range to check, which the conversion does, and floats may be NaN.
    narrow = datatype.field in ("int_contents", "uint_contents") and datatype.size < 4
    if narrow or datatype.wire.kind == "f":
        return raw_from_typed(datatype, contents)
    return b""


def is_finite(datatype: Datatype, raw: Buffer) -> bool:
    """Return False if a floating-point tensor in raw form has a NaN or an infinity."""
    mask = _EXPONENT_BITS.get(datatype.name)
    if mask is not None:
        bits = np.frombuffer(raw, np.dtype("<u2"))
        return not bool(((bits & mask) == mask).any())
    if datatype.wire.kind == "f":
        return bool(np.isfinite(np.frombuffer(raw, datatype.wire)).all())
    return True


def _check_shared_memory(parameters: Mapping[str, pb.InferParameter]) -> bool:
    """Check the shared-memory parameters of an input or requested output; True if it has them."""
    if not len(parameters):
        return False
    region = parameters.get("shared_memory_region")
    numbers = [parameters.get(f"shared_memory_{key}") for key in ("byte_size", "offset")]
    if region is None:
        if numbers != [None, None]:
            raise InvalidTensor("shared-memory parameters without shared_memory_region")
        return False
    if region.WhichOneof("parameter_choice") != "string_param" or not region.string_param:
        raise InvalidTensor("shared_memory_region must be a region's name")
    if region.string_param.startswith(_RESERVED_REGION):
        raise InvalidTensor("shared_memory_region names a region of the server's own")
    byte_size, offset = numbers
    if byte_size is None:
        raise InvalidTensor("shared_memory_byte_size is missing")
    for key, value in (("byte_size", byte_size), ("offset", offset)):
        if value is None:
            continue
        if value.WhichOneof("parameter_choice") != "int64_param" or value.int64_param < 0:
            raise InvalidTensor(f"shared_memory_{key} must be an int64 of at least 0")
    if byte_size.int64_param + (0 if offset is None else offset.int64_param) > INT64_MAX:
        raise InvalidTensor("shared-memory range ends past the largest int64")
    return True


def _check_output(parameters: Mapping[str, pb.InferParameter]) -> None:
    shared = _check_shared_memory(parameters)
    classification = parameters.get("classification")
    if classification is None:
        return
    if (
        classification.WhichOneof("parameter_choice") != "int64_param"
        or classification.int64_param < 1
    ):
        raise InvalidTensor("classification must be an int64 of at least 1")
    if shared:
        raise InvalidTensor("classification cannot go to shared memory")
