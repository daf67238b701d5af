"""A model's answers as evidence: which requests show them, how they are read and asked for.

Pure: bytes in, arrays or bytes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from proxy import wire
from proxy.adapt import ModelSpec
from proxy.case import Buffer
from proxy.datatypes import DATATYPES, frame_strings, strings
from proxy.errors import InvalidRequest, UpstreamError

Output = npt.NDArray[np.float32]
"""A model's class scores, (samples, classes)."""

_INTERNAL = 13  # gRPC's number for it
_ONE_BYTE = 128  # a length under this is one byte on the wire
_HEAD_BYTES = 1024  # where the id is, behind the names of model and version
_SCORE_TYPES = ("FP32", "FP16", "BF16", "FP64")
_RESERVED = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout")


def check_whose(data: bytes, request_id: str) -> None:
    """Make sure that an answer is to the request it came for, as far as ids tell.

    HTTP/2 sees to that; a model server that mixes up its own clients is not to hand one's answer
    to another. An answer without an id, or one that cannot be read, is as the server made it.

    Args:
        data: the answer.
        request_id: that of the request; empty: it had none.

    Raises:
        UpstreamError: it is the answer to another request (INTERNAL).
    """
    if not request_id:
        return
    name = request_id.encode()
    # Nearly always: field 3, in the first bytes, as the server got it. A third of a microsecond.
    if len(name) < _ONE_BYTE and data.find(b"\x1a%c%b" % (len(name), name), 0, _HEAD_BYTES) >= 0:
        return
    try:
        given = wire.InferResponse.parse(data).head.id
    except InvalidRequest:
        return
    if given and given != request_id:
        raise UpstreamError(_INTERNAL, "the model server answered another request", is_final=True)


def shows_output(request: wire.InferRequest, spec: ModelSpec) -> bool:
    """Whether the answer to this request will hold the model's plain class scores."""
    if spec.output is None:
        return False
    requested = request.head.outputs
    if not requested:
        return True
    hidden = ("classification", "shared_memory_region")
    # An output may be asked for twice, and the last wish counts: all of them must be plain.
    plain = [
        not any(key in output.parameters for key in hidden)
        for output in requested
        if output.name == spec.output
    ]
    return bool(plain) and all(plain)


def read_output(data: bytes, spec: ModelSpec, samples: int) -> Output | None:
    """The model's class scores, (samples, K) float32, K >= 2; None where the answer has none.

    Logits as they are; probabilities as their logarithms.
    """
    try:
        response = wire.InferResponse.parse(data)
        for tensor in response.tensors:
            if tensor.name == spec.output and tensor.datatype in _SCORE_TYPES:
                rows = wire.as_numpy(tensor).astype(np.float32, copy=False).reshape(samples, -1)
                # More axes than classes (a feature map, a segmentation) are no class scores.
                axes = [d for d in tensor.shape[1 if spec.has_batch_axis else 0 :] if d != 1]
                if rows.shape[1] < 2 or len(axes) != 1:
                    return None
                return _log(rows) if spec.output_kind == "probabilities" else rows
    except (InvalidRequest, ValueError):
        # Triton's answer is not what its own description says: no evidence in it.
        return None
    return None


def write_output(data: bytes, spec: ModelSpec, samples: int, rows: Mapping[int, Output]) -> bytes:
    """The same answer with other class scores for some samples, in its own datatype.

    Args:
        data: an answer that `read_output` can read.
        samples: how many it is about.
        rows: sample -> (K,), as `read_output` gives them: logits, or logarithms of probabilities.
    """
    response = wire.InferResponse.parse(data)
    changes: dict[int, list[tuple[int, Buffer]]] = {}
    for tensor in response.tensors:
        # The same output may be there twice, and both are the caller's answer.
        if tensor.name == spec.output and tensor.datatype in _SCORE_TYPES:
            width = len(tensor.payload()) // samples
            changes[tensor.index] = [
                (
                    i * width,
                    _raw(tensor.datatype, np.exp(r) if spec.output_kind == "probabilities" else r),
                )
                for i, r in rows.items()
            ]
    return response.replace(changes)


def swap_classes(
    data: bytes, spec: ModelSpec, samples: int, swaps: Mapping[int, tuple[int, int]]
) -> bytes:
    """The same answer with the scores of two classes exchanged, to the last bit, in some samples.

    Args:
        data: an answer that `read_output` can read.
        samples: how many it is about.
        swaps: sample -> two classes.
    """
    response = wire.InferResponse.parse(data)
    changes: dict[int, list[tuple[int, Buffer]]] = {}
    for tensor in response.tensors:
        if tensor.name == spec.output and tensor.datatype in _SCORE_TYPES:
            raw = bytes(tensor.payload())
            row = len(raw) // samples
            size = 2 if tensor.datatype == "BF16" else DATATYPES[tensor.datatype].wire.itemsize
            pieces: list[tuple[int, Buffer]] = []
            for sample, classes in swaps.items():
                places = [sample * row + each * size for each in classes]
                scores = [raw[place : place + size] for place in places]
                pieces += zip(places, reversed(scores), strict=True)
            changes[tensor.index] = sorted(pieces)
    return response.replace(changes)


def _log(probabilities: Output) -> Output:
    # The smallest float32 above 0 keeps the logarithm finite for a model that rounds to zero.
    logs: Output = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logs


def copies_request(
    request: wire.InferRequest,
    spec: ModelSpec,
    image: int,
    copies: Sequence[Buffer],
    peer: str | None = None,
    samples: Sequence[int] | None = None,
    *,
    request_id: str = "",
) -> bytes:
    """A request for the plain class scores of copies of a client's request, in one batch.

    Args:
        request: the client's; its other inputs go along with every copy.
        image: index of the input that the copies stand in for.
        copies: raw wire tensors, each of that input's shape (or of `samples` alone).
        peer: another model to ask, in its newest version and in the same terms.
        samples: the rows of the request that each copy holds; all of them by default.
        request_id: by which the answer is told from others; never the client's.
    """
    count = len(copies)
    total = request.tensors[image].shape[:1]
    tensors: list[tuple[str, str, Sequence[int], Buffer | Sequence[Buffer]]] = []
    for tensor in request.tensors:
        shape = tensor.shape
        chosen = samples if spec.has_batch_axis and shape[:1] == total else None
        if spec.has_batch_axis and shape:
            rows = shape[0] if chosen is None else len(chosen)
            shape = (rows * count, *shape[1:])
        data = copies
        if tensor.index != image:
            data = [rows_of(tensor, chosen)] * (count if spec.has_batch_axis else 1)
        tensors.append((tensor.name, tensor.datatype, shape, data))
    parameters = {
        key: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for key, value in request.head.parameters.items()
        if key not in _RESERVED and not key.startswith("triton_")
    }
    return wire.build_infer_request(
        request.head.model_name if peer is None else peer,
        request.head.model_version if peer is None else "",
        tensors,
        [spec.output or ""],
        parameters=parameters,
        request_id=request_id,
    )


def rows_of(tensor: wire.Tensor, samples: Sequence[int] | None) -> bytes:
    """The values of some samples, or of all (None), in raw form."""
    raw = bytes(tensor.payload())
    if samples is None:
        return raw
    if tensor.datatype == "BYTES":
        elements = strings(raw)
        width = len(elements) // tensor.shape[0]
        return frame_strings([e for i in samples for e in elements[i * width : (i + 1) * width]])
    width = len(raw) // tensor.shape[0]
    return b"".join([raw[i * width : (i + 1) * width] for i in samples])


def _raw(datatype: str, row: Output) -> bytes:
    """Class scores in a datatype's raw form."""
    if datatype == "BF16":
        bits = row.astype("<f4").view("<u4")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    return row.astype(DATATYPES[datatype].wire).tobytes()
