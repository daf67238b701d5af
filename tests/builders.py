"""Requests and responses for tests, built with protobuf itself (never with the code under test)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from proxy.pb import open_inference_pb2 as pb

DATATYPE_OF = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint16): "UINT16",
    np.dtype(np.uint32): "UINT32",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    np.dtype(np.object_): "BYTES",
}
"""Every datatype but BF16, which numpy does not know."""

Value = bool | int | str | float


def framed(elements: Sequence[bytes]) -> bytes:
    """The raw form of a BYTES tensor."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in elements)


def raw_bytes(array: NDArray) -> bytes:
    """The raw form of an array."""
    if array.dtype == np.object_:
        return framed([bytes(item) for item in array.ravel()])
    return np.ascontiguousarray(array).tobytes()


def set_parameter(parameters, key: str, value: Value) -> None:
    """Write a parameter in the field that fits the Python type."""
    kind = {bool: "bool", int: "int64", str: "string", float: "double"}[type(value)]
    setattr(parameters[key], f"{kind}_param", value)


def infer_request(
    tensors: Mapping[str, NDArray],
    *,
    model: str = "classifier",
    version: str = "",
    request_id: str = "",
    outputs: Sequence[str] = (),
    parameters: Mapping[str, Value] | None = None,
) -> pb.ModelInferRequest:
    """A request with raw tensors, by input name."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for key, value in (parameters or {}).items():
        set_parameter(request.parameters, key, value)
    for name, array in tensors.items():
        request.inputs.add(name=name, datatype=DATATYPE_OF[array.dtype], shape=array.shape)
        request.raw_input_contents.append(raw_bytes(array))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def infer_response(
    tensors: Mapping[str, NDArray], *, model: str = "classifier", request_id: str = ""
) -> pb.ModelInferResponse:
    """A response with raw tensors, by output name, as Triton answers."""
    response = pb.ModelInferResponse(model_name=model, model_version="1", id=request_id)
    for name, array in tensors.items():
        response.outputs.add(name=name, datatype=DATATYPE_OF[array.dtype], shape=array.shape)
        response.raw_output_contents.append(raw_bytes(array))
    return response
