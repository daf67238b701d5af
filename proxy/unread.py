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

_Mapped = (
    pb.ModelInferRequest
    | pb.ModelInferRequest.InferInputTensor
    | pb.ModelInferRequest.InferRequestedOutputTensor
)
"""The messages of a request that have a map."""


def refuse_unread(message: pb.ModelInferRequest) -> None:
    """Raise InvalidRequest if a field that the protocol defines was not read as it defines it."""
    _refuse(message)
    for item in message.inputs:
        _refuse(item)
    for output in message.outputs:
        _refuse(output)


def _refuse(message: _Mapped) -> None:
    for unread in UnknownFieldSet(message):
        field = message.DESCRIPTOR.fields_by_number.get(unread.field_number)
        if field is not None:
            raise InvalidRequest(
                f"field {field.name} of {message.DESCRIPTOR.name} is malformed: it has another "
                "wire type than the protocol's, or a map entry with more than a key and a value"
            )
