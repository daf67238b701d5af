"""What is inspected against what protobuf reads in the whole message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message

from loadtests.fuzz.encoding import varint
from loadtests.fuzz.values import CODES, SIZES, TYPED, all_finite, framed, numbers, taken_apart
from proxy.config import NonFinitePolicy
from proxy.errors import ProxyError
from proxy.pb import open_inference_pb2 as pb
from proxy.validation import validate
from proxy.wire import InferRequest, InferResponse, StreamResponse, Tensor, as_numpy

_DTYPES = {
    **{name: np.dtype(f"<{code}") for name, code in CODES.items()},
    **{"BF16": np.dtype("<f4"), "BYTES": np.dtype(object)},
}
_FIELDS = {
    **{"BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents"},
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"},
}
_DETAIL = re.compile(r"'(?:[^'\\]|\\.)*'(?:\.\.\.)?|\"[^\"]*\"|-?\d+|\[[^\]]*\]")


class Difference(Exception):
    """Breakwater and the reference do not agree; the text says on what."""


def same(what: str, ours: object, theirs: object) -> None:
    """Raise Difference unless both are equal."""
    if ours != theirs:
        raise Difference(f"{what}: {ours!r} here, {theirs!r} there")


def reason(error: ProxyError) -> str:
    """An error's text without what differs from one request to the next."""
    return _DETAIL.sub("*", str(error))


def canonical(message: Message) -> bytes:
    """A message's fields, to compare; unlike `==`, a NaN is equal to itself."""
    return message.SerializeToString(deterministic=True)


def read_request(data: bytes, non_finite: NonFinitePolicy) -> InferRequest:
    """A valid request, as the pipeline reads it; raises ProxyError."""
    request = InferRequest.parse(data)
    validate(request, non_finite=non_finite)
    return request


def whole(kind: type[Any], data: bytes) -> Any:
    """The whole message by protobuf; what it refuses must not have been accepted."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Difference("accepted here, refused by protobuf") from None


def check_request(data: bytes, non_finite: NonFinitePolicy = "pass") -> InferRequest:
    """Compare everything that was read; raises ProxyError where the request is refused."""
    request = read_request(data, non_finite)
    full = whole(pb.ModelInferRequest, data)
    same("id", request.request_id, full.id)
    same("model", request.common.model, full.model_name)
    same("version", request.common.version, full.model_version)
    same("raw entries", [bytes(p.view) for p in request.pieces], list(full.raw_input_contents))
    wanted = list(expected_payloads(full))
    same("inputs", len(request.tensors), len(wanted))
    for tensor, item, raw in zip(request.tensors, full.inputs, wanted, strict=True):
        same("name", tensor.name, item.name)
        _check_tensor(tensor, item, raw)
        if non_finite == "refuse" and raw is not None and not all_finite(item.datatype, raw):
            raise Difference(f"a value of {item.name!r} is not finite")
    full.ClearField("id")
    full.ClearField("raw_input_contents")
    same("head", canonical(request.head), canonical(full))
    return request


def expected_payloads(full: pb.ModelInferRequest) -> Iterator[bytes | None]:
    """Each input's values in raw form by the protocol's rules; None for those in shared memory."""
    raw = iter(full.raw_input_contents)
    for item in full.inputs:
        if "shared_memory_region" in item.parameters:
            yield None
        elif item.HasField("contents"):
            yield raw_of(item)
        else:
            yield next(raw, None)


def raw_of(item: Any) -> bytes:
    """Typed values in raw form, one value at a time."""
    name = _FIELDS[item.datatype]
    values = list(getattr(item.contents, name))
    if item.datatype == "BYTES":
        return framed(values)
    if item.datatype in ("FP32", "FP64"):
        # The language's own floats make signalling NaNs quiet: the end of what protobuf writes.
        only = pb.InferTensorContents()
        only.CopyFrom(item.contents)
        only.DiscardUnknownFields()
        for field in set(_FIELDS.values()) - {name}:
            only.ClearField(field)
        return only.SerializeToString()[-len(values) * SIZES[item.datatype] :] if values else b""
    return np.array(values, _DTYPES[item.datatype]).tobytes()


def put_typed(item: Any, raw: bytes) -> None:
    """Write raw values as typed ones, in place of those there."""
    field = _FIELDS[item.datatype]
    item.contents.ClearField(field)
    if item.datatype in ("FP32", "FP64"):  # as bytes, since a NaN's bits are to stay
        packed = varint(TYPED[item.datatype] << 3 | 2) + varint(len(raw)) + raw
        item.contents.MergeFromString(packed)
    elif item.datatype == "BYTES":
        item.contents.bytes_contents.extend(taken_apart(raw))
    else:
        getattr(item.contents, field).extend(numbers(item.datatype, raw))
    item.contents.SetInParent()


def _check_tensor(tensor: Tensor, item: Any, raw: bytes | None) -> None:
    same("datatype", tensor.datatype, item.datatype)
    same("shape", tensor.shape, tuple(item.shape))
    same("in shared memory", tensor.shared_memory is not None, raw is None)
    if raw is None:
        return
    same("values", bytes(tensor.payload()), raw)
    check_array(as_numpy(tensor), item.datatype, tuple(item.shape), raw)


def check_array(array: Any, datatype: str, shape: tuple[int, ...], raw: bytes) -> None:
    """Compare an array with values read one by one, bit for bit."""
    same("array's shape", array.shape, shape)
    same("array's type", array.dtype, _DTYPES[datatype])
    if datatype == "BYTES":
        same("array", list(array.ravel()), taken_apart(raw))
        return
    if datatype == "BF16":
        raw = b"".join([b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2)])
    if datatype == "BOOL":
        raw = bytes([value != 0 for value in raw])
    same("array", array.tobytes(), raw)
    same("elements", array.size * (SIZES[datatype] if datatype != "BF16" else 4), len(raw))


def check_response(data: bytes) -> InferResponse:
    """Compare an answer; raises ProxyError where it cannot be read."""
    response = InferResponse.parse(data)
    full = whole(pb.ModelInferResponse, data)
    raws = list(full.raw_output_contents)
    same("outputs", len(response.tensors), len(full.outputs))
    for index, (tensor, item) in enumerate(zip(response.tensors, full.outputs, strict=True)):
        same("name", tensor.name, item.name)
        same("datatype", tensor.datatype, item.datatype)
        same("shape", tensor.shape, tuple(item.shape))
        raw = raws[index] if index < len(raws) else None
        same("raw", None if tensor.data is None else bytes(tensor.data), raw)
        _check_output(tensor, item, raw)
    full.ClearField("raw_output_contents")
    same("head", canonical(response.head), canonical(full))
    return response


def _check_output(tensor: Tensor, item: Any, raw: bytes | None) -> None:
    """The values, where they can be read at all."""
    try:
        array = as_numpy(tensor)
    except ProxyError:
        return
    if raw is None:
        raw = raw_of(item)
    check_array(array, item.datatype, tuple(item.shape), raw)


def check_streamed(data: bytes) -> StreamResponse:
    """Compare one answer of a stream; raises ProxyError where it cannot be read."""
    streamed = StreamResponse.parse(data)
    full = whole(pb.ModelStreamInferResponse, data)
    same("error", streamed.error, full.error_message)
    same("answer", streamed.response is not None, full.HasField("infer_response"))
    same("id", streamed.request_id, full.infer_response.id)
    if streamed.response is not None:
        inner = InferResponse.parse(canonical(full.infer_response))
        same("answer's head", canonical(streamed.response.head), canonical(inner.head))
        same(
            "answer's values",
            [None if t.data is None else bytes(t.data) for t in streamed.response.tensors],
            [None if t.data is None else bytes(t.data) for t in inner.tensors],
        )
    return streamed
