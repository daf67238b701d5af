"""ModelInferRequest and its answers, read without copying or parsing the tensors.

The top-level fields are walked once. Everything but the raw tensors, concatenated in wire order,
goes to real protobuf, so that what is read here is what the server will read; the raw tensors
become views of the message. Whatever protobuf could read in another way is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from proxy.datatypes import (
    DATATYPES,
    MAX_RANK,
    Datatype,
    array_from_raw,
    raw_from_typed,
    typed_from_raw,
)
from proxy.errors import InvalidRequest, InvalidTensor
from proxy.fields import Buffer, Pieces, RawPiece, raw_header, split
from proxy.pb import open_inference_pb2 as pb
from proxy.unread import refuse_unread

Changes = Mapping[int, Buffer | Sequence[tuple[int, Buffer]]]
"""By index: a whole new payload in raw form, or (offset, bytes) to write over the old one."""

RAW_INPUT, REQUEST_ID = 7, 3
"""Field numbers of ModelInferRequest."""

_NOT_A_REQUEST = "the message is not a valid ModelInferRequest"
_RAW_OUTPUT = 6
_INFER_RESPONSE = 2
_SHM_REGION = "shared_memory_region"
_SHM_KEYS = (_SHM_REGION, "shared_memory_byte_size", "shared_memory_offset")


class SharedMemoryRef(NamedTuple):
    """Where a tensor lies that is not in the message."""

    region: str
    byte_size: int
    offset: int


@dataclass(slots=True)
class Tensor:
    """One input of a request or output of a response."""

    index: int
    """Position among the message's inputs or outputs."""
    name: str
    datatype: str
    shape: tuple[int, ...]
    piece: RawPiece | None
    """The raw entry, or None."""
    contents: pb.InferTensorContents | None
    """The typed values (part of the message's head, do not modify), or None."""
    shared_memory: SharedMemoryRef | None

    def with_piece(self, piece: RawPiece | None) -> Tensor:
        """The same tensor with this raw entry."""
        return Tensor(
            self.index,
            self.name,
            self.datatype,
            self.shape,
            piece,
            self.contents,
            self.shared_memory,
        )

    @property
    def data(self) -> memoryview | None:
        """The raw payload, a view of the message, or None."""
        return None if self.piece is None else self.piece.view

    def payload(self) -> Buffer:
        """Return the values in raw form: the view itself, or typed values converted.

        Raises:
            InvalidTensor: there are no values in the message, or they have no raw form.
        """
        if self.piece is not None:
            return self.piece.view
        if self.contents is None:
            raise InvalidTensor(f"tensor {quoted(self.name)} has no data in the message")
        try:
            return raw_from_typed(self.kind(), self.contents)
        except InvalidTensor as error:
            raise InvalidTensor(f"tensor {quoted(self.name)}: {error}") from None

    def kind(self) -> Datatype:
        """Return the datatype's description; raises InvalidTensor for an unknown one."""
        kind = DATATYPES.get(self.datatype)
        if kind is None:
            raise InvalidTensor(
                f"tensor {quoted(self.name)} has unknown datatype {quoted(self.datatype)}"
            )
        return kind


def quoted(text: str) -> str:
    """Return a client's text fit for an error message: ASCII, escaped, at most 64 characters."""
    return ascii(text) if len(text) <= 64 else ascii(text[:63]) + "..."


def as_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values as an array of its shape, whether raw or typed.

    Numbers keep their type; raw ones are a read-only view, possibly unaligned. BF16 becomes
    float32, BYTES an object array of `bytes`.

    Raises:
        InvalidTensor: there are no values in the message, or they contradict shape and datatype.
    """
    kind, raw = tensor.kind(), tensor.payload()
    try:
        return array_from_raw(kind, tensor.shape, raw)
    except InvalidTensor as error:
        raise InvalidTensor(f"tensor {quoted(tensor.name)}: {error}") from None


@dataclass(frozen=True, slots=True)
class Head:
    """All of a ModelInferRequest but its raw tensors and its id: the part that repeats."""

    data: bytes
    """As it came, in wire order."""
    message: pb.ModelInferRequest
    """As protobuf read it. Do not modify: requests share it."""
    model: str
    version: str
    inputs: tuple[Tensor, ...]
    """The inputs in order, without their raw values."""
    uses_shared_memory: bool
    """Whether an input or a requested output lies in shared memory."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a head; raises InvalidRequest and InvalidTensor as `InferRequest.parse`."""
        try:
            message = pb.ModelInferRequest.FromString(data)
        except DecodeError:
            raise InvalidRequest(_NOT_A_REQUEST) from None
        refuse_unread(message, len(data))
        inputs = tuple([_tensor(index, item) for index, item in enumerate(message.inputs)])
        shared = any(tensor.shared_memory is not None for tensor in inputs) or any(
            _SHM_REGION in output.parameters for output in message.outputs
        )
        return cls(data, message, message.model_name, message.model_version, inputs, shared)


class InferRequest:
    """A ModelInferRequest: its head as protobuf read it, its tensors as views of the message.

    Args:
        data: the message as it came.
        common: its head.
        request_id: the client's id for the request.
        pieces: every raw entry, also those that no input claims.
    """

    __slots__ = ("_tensors", "common", "data", "pieces", "request_id")

    def __init__(self, data: Buffer, common: Head, request_id: str, pieces: list[RawPiece]) -> None:
        self.data = data
        self.common = common
        self.request_id = request_id
        self.pieces = pieces
        self._tensors: list[Tensor] | None = None

    @property
    def head(self) -> pb.ModelInferRequest:
        """Every field but raw_input_contents and id. Do not modify."""
        return self.common.message

    @property
    def tensors(self) -> list[Tensor]:
        """The inputs in order.

        Raw entries are dealt to the inputs that are not in shared memory; whether the two counts
        agree is for `proxy.validation`.
        """
        if self._tensors is None:
            raw = iter(self.pieces)
            self._tensors = [
                tensor.with_piece(None if tensor.shared_memory is not None else next(raw, None))
                for tensor in self.common.inputs
            ]
        return self._tensors

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read a message.

        Raises:
            InvalidRequest: it is not one protobuf would read, or exceeds a bound (`split`).
            InvalidTensor: a tensor has more than 32 axes.
        """
        pieces = split(data, RAW_INPUT, REQUEST_ID)
        return cls(data, Head.parse(pieces.head), read_id(pieces), pieces.raw)

    def replace(self, changes: Changes) -> bytes:
        """Return a new message in which the inputs named by index have new values.

        Raw inputs are spliced in place: everything else stays as the client sent it, byte for
        byte. For typed inputs the head is written anew by protobuf (unknown fields are kept).
        An input in shared memory becomes an inline raw one; typed inputs beside it become raw too,
        since the server takes one form or the other.

        Raises:
            IndexError, ValueError: an index or offset outside the request (a caller's error).
            InvalidTensor: new values of a BYTES tensor that are not framed.
        """
        tensors = {index: self.tensors[index] for index in sorted(changes)}
        if all(tensor.piece is not None for tensor in tensors.values()):
            return _spliced(self.data, RAW_INPUT, tensors.values(), changes)
        return self._rewrite(changes, inline=any(t.shared_memory for t in tensors.values()))

    def _rewrite(self, changes: Changes, *, inline: bool) -> bytes:
        head = pb.ModelInferRequest()
        head.CopyFrom(self.head)
        head.id = self.request_id
        parts: list[Buffer] = []
        for tensor, item in zip(self.tensors, head.inputs, strict=True):
            changed = tensor.index in changes
            if tensor.shared_memory is not None:
                if not changed:
                    continue
                for key in _SHM_KEYS:
                    item.parameters.pop(key, None)
            payload = _changed(tensor, changes[tensor.index]) if changed else None
            if tensor.contents is not None and not inline:
                if payload is not None:
                    typed_from_raw(tensor.kind(), payload, item.contents)
                continue
            item.ClearField("contents")
            payload = tensor.payload() if payload is None else payload
            parts += (raw_header(RAW_INPUT, payload), payload)
        return b"".join([head.SerializeToString(), *parts])


class InferResponse:
    """A ModelInferResponse: its head as protobuf read it, its outputs as views of the message."""

    __slots__ = ("data", "head", "tensors")

    def __init__(self, data: Buffer, head: pb.ModelInferResponse, tensors: list[Tensor]) -> None:
        self.data = data
        """The message as it came."""
        self.head = head
        """Every field but raw_output_contents. Do not modify."""
        self.tensors = tensors
        """The outputs in order; read them with `as_numpy`."""

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read a message. Raises InvalidRequest and InvalidTensor as `InferRequest.parse` does."""
        head_bytes, pieces, _ = split(data, _RAW_OUTPUT)
        try:
            head = pb.ModelInferResponse.FromString(head_bytes)
        except DecodeError:
            raise InvalidRequest("the message is not a valid ModelInferResponse") from None
        tensors = [_tensor(index, item) for index, item in enumerate(head.outputs)]
        # Unlike requests, responses have a raw entry for every output, empty for those in shared
        # memory, which the server does not mark: only the client knows where it asked for them.
        for tensor, piece in zip(tensors, pieces, strict=False):
            tensor.piece = piece
        return cls(data, head, tensors)

    def tensor(self, name: str) -> Tensor | None:
        """Return the output of that name, or None."""
        return next((tensor for tensor in self.tensors if tensor.name == name), None)

    def replace(self, changes: Changes) -> bytes:
        """Return a new message in which the outputs named by index have new values.

        Raw outputs are spliced in place, everything else stays as the server sent it, byte for
        byte; for typed ones the head is written anew by protobuf.

        Raises:
            IndexError, ValueError: an index or offset outside the response (a caller's error).
            InvalidTensor: an output without values, or new ones that its datatype does not take.
        """
        tensors = {index: self.tensors[index] for index in sorted(changes)}
        if all(tensor.piece is not None for tensor in tensors.values()):
            return _spliced(self.data, _RAW_OUTPUT, tensors.values(), changes)
        head = pb.ModelInferResponse()
        head.CopyFrom(self.head)
        parts: list[Buffer] = []
        for tensor in self.tensors:
            changed = tensor.index in changes
            payload = _changed(tensor, changes[tensor.index]) if changed else tensor.data
            if tensor.piece is None and changed and payload is not None:
                typed_from_raw(tensor.kind(), payload, head.outputs[tensor.index].contents)
            elif tensor.piece is not None and payload is not None:
                parts += (raw_header(_RAW_OUTPUT, payload), payload)
        return b"".join([head.SerializeToString(), *parts])


class StreamResponse:
    """A ModelStreamInferResponse: one answer of a stream, or the error of one of its requests."""

    __slots__ = ("error", "response")

    def __init__(self, error: str, response: InferResponse | None) -> None:
        self.error = error
        """Empty when there is none."""
        self.response = response

    @property
    def request_id(self) -> str:
        """The id of the request answered, or an empty string."""
        return "" if self.response is None else self.response.head.id

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read a message. Raises InvalidRequest and InvalidTensor as `InferRequest.parse` does."""
        head_bytes, pieces, _ = split(data, _INFER_RESPONSE)
        try:
            error = pb.ModelStreamInferResponse.FromString(head_bytes).error_message
        except DecodeError:
            raise InvalidRequest("the message is not a valid ModelStreamInferResponse") from None
        if not pieces:
            return cls(error, None)
        # Protobuf merges a message field that comes twice; so does concatenation, of parts that are
        # messages each: a field may not begin in one and end in the next.
        parsed = [InferResponse.parse(piece.view) for piece in pieces]
        if len(parsed) == 1:
            return cls(error, parsed[0])
        return cls(error, InferResponse.parse(b"".join([piece.view for piece in pieces])))


def stream_error(request_id: str, text: str) -> bytes:
    """Return the in-band error of one request of a stream."""
    message = pb.ModelStreamInferResponse(
        error_message=text, infer_response=pb.ModelInferResponse(id=request_id)
    )
    return message.SerializeToString()


def build_infer_request(
    model: str,
    version: str,
    tensors: Sequence[tuple[str, str, Sequence[int], Buffer | Sequence[Buffer]]],
    outputs: Sequence[str] = (),
    *,
    request_id: str = "",
    parameters: Mapping[str, bool | int | str | float] | None = None,
) -> bytes:
    """Return a ModelInferRequest of raw tensors, for the proxy's own queries.

    Args:
        model: the model's name.
        version: its version, or empty for the newest.
        tensors: (name, datatype, shape, payload in raw form, whole or in parts).
        outputs: names of the outputs wanted; empty for all of them.
        request_id: copied to the response by the server.
        parameters: of the request, such as priority or a custom key.
    """
    head = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for key, value in (parameters or {}).items():
        _set_parameter(head.parameters[key], value)
    parts: list[Buffer] = []
    for name, datatype, shape, payload in tensors:
        head.inputs.add(name=name, datatype=datatype, shape=shape)
        pieces = (payload,) if isinstance(payload, bytes | memoryview) else payload
        parts += (raw_header(RAW_INPUT, *pieces), *pieces)
    for name in outputs:
        head.outputs.add(name=name)
    return b"".join([head.SerializeToString(), *parts])


def _set_parameter(parameter: pb.InferParameter, value: bool | int | str | float) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    else:
        parameter.double_param = value


def read_id(pieces: Pieces) -> str:
    """The request's id; raises InvalidRequest if it has a NUL or is not the UTF-8 of protobuf."""
    request_id = ""
    try:
        for payload in pieces.single:
            request_id = str(payload, "utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(_NOT_A_REQUEST) from None
    if "\0" in request_id:  # the server keeps it as a C string, and its answer would have another
        raise InvalidRequest("the request's id has a NUL")
    return request_id


def _tensor(
    index: int,
    item: pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor,
) -> Tensor:
    shape = item.shape
    if len(shape) > MAX_RANK:
        raise InvalidTensor(
            f"tensor {quoted(item.name)} has {len(shape)} axes, more than {MAX_RANK}"
        )
    parameters = item.parameters
    shared = None
    if len(parameters) and _SHM_REGION in parameters:
        # Indexing a protobuf map inserts what is missing, and the head must stay as it came.
        size, offset = (parameters.get(key) for key in _SHM_KEYS[1:])
        shared = SharedMemoryRef(
            parameters[_SHM_REGION].string_param,
            0 if size is None else size.int64_param,
            0 if offset is None else offset.int64_param,
        )
    contents = item.contents if item.HasField("contents") else None
    return Tensor(index, item.name, item.datatype, tuple(shape), None, contents, shared)


def _spliced(data: Buffer, field: int, tensors: Iterable[Tensor], changes: Changes) -> bytes:
    """Return the message with new values for these raw tensors, by ascending index."""
    view = memoryview(data)
    parts: list[Buffer] = []
    position = 0
    for tensor in tensors:
        piece, change = tensor.piece, changes[tensor.index]
        assert piece is not None  # noqa: S101 (the caller looked)
        if isinstance(change, bytes | memoryview):
            if len(change) == piece.end - piece.start:
                parts += (view[position : piece.start], change)
            else:
                parts += (view[position : piece.tag_start], raw_header(field, change))
                parts.append(change)
            position = piece.end
            continue
        for offset, patch in _in_order(change, piece.end - piece.start):
            parts += (view[position : piece.start + offset], patch)
            position = piece.start + offset + len(patch)
    parts.append(view[position:])
    return b"".join(parts)


def _changed(tensor: Tensor, change: Buffer | Sequence[tuple[int, Buffer]]) -> Buffer:
    """Return the whole new payload of a tensor whose change may be patches."""
    if isinstance(change, bytes | memoryview):
        return change
    payload = bytearray(tensor.payload())
    for offset, patch in _in_order(change, len(payload)):
        payload[offset : offset + len(patch)] = patch
    return bytes(payload)


def _in_order(patches: Sequence[tuple[int, Buffer]], size: int) -> list[tuple[int, Buffer]]:
    """Return the patches by offset; raises ValueError if they overlap or leave the payload."""
    ordered = sorted(patches, key=lambda patch: patch[0])
    free = 0
    for offset, patch in ordered:
        if offset < free or offset + len(patch) > size:
            raise ValueError(f"patch at {offset} overlaps another or leaves the {size} bytes")
        free = offset + len(patch)
    return ordered
