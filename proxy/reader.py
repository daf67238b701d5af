"""Reads and validates inference requests, and remembers what they have in common.

A client's requests differ in the bytes of their tensors and in their id; the rest, the head, is the
same time and again. A head seen and found valid before is not parsed and validated anew: equal
bytes mean equal messages. What may differ, ids and values, is looked at every time.
"""

from __future__ import annotations

from proxy.config import NonFinitePolicy
from proxy.errors import InvalidTensor
from proxy.fields import Buffer, RawPiece, split
from proxy.validation import is_finite, validate
from proxy.wire import RAW_INPUT, REQUEST_ID, Head, InferRequest, quoted, read_id

MAX_HEADS = 256
"""Most heads remembered; the oldest goes first, so a client that never repeats itself only makes
its own requests slower."""

MAX_HEAD_BYTES = 2048
"""Longest head remembered: an ordinary one has 50 to 200 bytes."""

_Key = tuple[bytes, tuple[int, ...]]


class Reader:
    """Turns messages into valid requests; one for each event loop."""

    def __init__(self) -> None:
        self._known: dict[_Key, Head] = {}

    def read(self, data: Buffer) -> tuple[InferRequest, bool]:
        """A request, and whether its head is known to be valid.

        Raises:
            InvalidRequest, InvalidTensor: as `InferRequest.parse`.
        """
        pieces = split(data, RAW_INPUT, REQUEST_ID)
        head = self._known.get(_key(pieces.head, pieces.raw))
        known = head is not None
        return (
            InferRequest(data, head or Head.parse(pieces.head), read_id(pieces), pieces.raw),
            known,
        )

    def validate(self, request: InferRequest, *, known: bool, non_finite: NonFinitePolicy) -> None:
        """Raise InvalidRequest or InvalidTensor unless the request is valid; see `validate`.

        Args:
            known: what `read` said of the request.
            non_finite: what NaN and infinities mean.
        """
        if not known:
            validate(request, non_finite=non_finite)
            self._remember(request)
        elif non_finite == "refuse":
            for tensor in request.tensors:
                if tensor.piece is not None and not is_finite(tensor.kind(), tensor.piece.view):
                    raise InvalidTensor(
                        f"input {quoted(tensor.name)}: has a value that is NaN or infinite"
                    )

    def _remember(self, request: InferRequest) -> None:
        """Keep a valid head, if all that its validity depends on is in the key.

        Typed values and shared-memory references are part of the head, and the framing of BYTES is
        part of the values.
        """
        head = request.common
        if len(head.data) > MAX_HEAD_BYTES or head.uses_shared_memory:
            return
        if any(tensor.piece is None or not tensor.kind().size for tensor in request.tensors):
            return
        while len(self._known) >= MAX_HEADS:
            del self._known[next(iter(self._known))]
        self._known[_key(head.data, request.pieces)] = head


def _key(head: bytes, raw: list[RawPiece]) -> _Key:
    return head, tuple([piece.end - piece.start for piece in raw])
