"""Fields of a known number that protobuf kept without reading them.

The implementation behind Python (upb) sets a whole map entry aside as unknown when anything in it
is unknown; the C++ one, which servers use, reads the entry and drops the rest. Such an entry would
be hidden from whatever is decided here, and obeyed there: an input with one has been read from
shared memory instead of from the message.
"""

from __future__ import annotations

from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found]

from proxy.errors import InvalidRequest
from proxy.pb import open_inference_pb2 as pb

_Message = (
    pb.ModelInferRequest
    | pb.ModelInferRequest.InferInputTensor
    | pb.ModelInferRequest.InferRequestedOutputTensor
    | pb.InferTensorContents
)

LOOKED_AT_BYTES = 1 << 16
"""Longest head whose unknown fields are looked at one by one, some 0.3 us each. An unknown field
can take 2 bytes, so a longer one, which only typed values make, may have none at all."""


def refuse_unread(message: pb.ModelInferRequest, size: int) -> None:
    """Raise InvalidRequest if a field that the protocol defines was not read as it defines it.

    Args:
        message: as parsed.
        size: of what it was parsed from, bytes.
    """
    if size > LOOKED_AT_BYTES:
        whole = message.ByteSize()
        message.DiscardUnknownFields()  # type: ignore[attr-defined]
        if message.ByteSize() != whole:
            raise InvalidRequest(
                f"unknown fields in a request of more than {LOOKED_AT_BYTES} bytes without its raw "
                "tensors: send the tensors raw"
            )
        return
    _refuse(message)
    for item in message.inputs:
        _refuse(item)
        if item.HasField("contents"):
            _refuse(item.contents)
    for output in message.outputs:
        _refuse(output)


def _refuse(message: _Message) -> None:
    for unread in UnknownFieldSet(message):
        field = message.DESCRIPTOR.fields_by_number.get(unread.field_number)
        if field is not None:
            raise InvalidRequest(
                f"field {field.name} of {message.DESCRIPTOR.name} is malformed: it has another "
                "wire type than the protocol's, or a map entry with more than a key and a value"
            )
