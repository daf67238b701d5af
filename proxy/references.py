"""ModelInferRequest with references to shared memory in the place of its raw tensors.

The rest of the request stays as the client sent it, byte for byte: parameters are appended to the
inputs that move. Like the requests themselves, what is sent differs from one to the next only in
the request's id and in the places, so that it is put together once for each kind of request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.arena import aligned
from proxy.datatypes import DATATYPES
from proxy.errors import InvalidRequest
from proxy.fields import Buffer, RawPiece, raw_header, split
from proxy.wire import RAW_INPUT, REQUEST_ID, Head

_INPUT, _PARAMETER = 5, 4
"""Field numbers: of an input in the request, and of a parameter in an input."""
_INT64 = b"\x10"
"""Tag of `int64_param` in a parameter."""
_OFFSET_BYTES = 5
"""Every offset is written this long, however small, so that another fits in its place: protobuf
reads padded numbers. Enough for arenas of 32 GiB."""


@dataclass(frozen=True, slots=True)
class Places:
    """A kind of request: what is sent in its place, and where the tensors go."""

    head: bytes
    """Without the id and the raw entries that stay."""
    offsets_at: tuple[int, ...]
    """Where in the head the tensors' offsets belong."""
    moved: tuple[tuple[int, int], ...]
    """(index among the raw entries, offset within the lease) of each tensor that moves."""
    inline: tuple[int, ...]
    """Indices of the raw entries that stay."""
    byte_size: int
    """Of the lease for them all."""

    def message(self, start: int, pieces: Sequence[RawPiece], request_id: str) -> bytes:
        """Return the message to send when the lease begins at `start`."""
        head = bytearray(self.head)
        for at, (_, offset) in zip(self.offsets_at, self.moved, strict=True):
            head[at : at + _OFFSET_BYTES] = _padded(start + offset)
        parts: list[Buffer] = [bytes(head)]
        if request_id:
            name = request_id.encode()
            parts += (raw_header(REQUEST_ID, name), name)
        for index in self.inline:
            parts += (raw_header(RAW_INPUT, pieces[index].view), pieces[index].view)
        return b"".join(parts)


def can_move(head: Head) -> bool:
    """Whether tensors of such requests may be handed over.

    Not where some are in shared memory already, or typed. And not those of a sequence: should the
    memory be refused, the request is sent again, and such a model may see it once.
    """
    parameters = head.message.parameters
    sequence = len(parameters) and "sequence_id" in parameters
    return not (
        sequence or head.uses_shared_memory or any(t.contents is not None for t in head.inputs)
    )


def places(head: Head, sizes: Sequence[int], region: str, *, least_bytes: int) -> Places | None:
    """Where the tensors of such requests go; None where there is none to move.

    Args:
        head: one that `can_move`.
        sizes: of the raw entries, bytes: one entry an input, as `proxy.validation` has seen to.
        region: the name under which Triton knows the memory.
        least_bytes: smaller tensors stay in the message.
    """
    try:
        items = split(head.data, _INPUT).raw
    except InvalidRequest:  # fields of another wire type that protobuf skips, as unknown
        return None
    if not len(sizes) == len(head.inputs) == len(items):
        return None
    moved: list[tuple[int, int]] = []
    offsets_at: list[int] = []
    parts: list[Buffer] = []
    written = position = total = 0
    view = memoryview(head.data)
    for index, item in enumerate(items):
        kind = DATATYPES.get(head.inputs[index].datatype)
        if kind is None or not kind.size or sizes[index] < max(1, least_bytes):
            continue
        added = _reference(region, sizes[index])
        body = bytes(item.view) + added
        parts += (view[position : item.tag_start], raw_header(_INPUT, body), body)
        written += sum(len(part) for part in parts[-3:])
        offsets_at.append(written - _OFFSET_BYTES)
        moved.append((index, total))
        total += aligned(sizes[index])
        position = item.end
    if not moved:
        return None
    parts.append(view[position:])
    gone = {index for index, _ in moved}
    inline = tuple(index for index in range(len(sizes)) if index not in gone)
    return Places(b"".join(parts), tuple(offsets_at), tuple(moved), inline, total)


def _reference(region: str, byte_size: int) -> bytes:
    """The parameters that say where a tensor lies; the last bytes are the offset's.

    Of a key that comes twice the last counts, in protobuf's maps: what a client may have said under
    these names is void.
    """
    name = region.encode()
    size = _INT64 + _varint(byte_size)
    offset = _INT64 + _padded(0)
    return b"".join(
        (
            _parameter(b"shared_memory_region", raw_header(3, name) + name),
            _parameter(b"shared_memory_byte_size", size),
            _parameter(b"shared_memory_offset", offset),
        )
    )


def _parameter(key: bytes, value: bytes) -> bytes:
    """One entry of the map: key and value are its fields 1 and 2."""
    entry = raw_header(1, key) + key + raw_header(2, value) + value
    return raw_header(_PARAMETER, entry) + entry


def _varint(number: int) -> bytes:
    """A number as protobuf writes it, as short as can be."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _padded(number: int) -> bytes:
    """A number below 2**35 in five bytes."""
    return bytes(
        (
            number & 0x7F | 0x80,
            number >> 7 & 0x7F | 0x80,
            number >> 14 & 0x7F | 0x80,
            number >> 21 & 0x7F | 0x80,
            number >> 28 & 0x7F,
        )
    )
