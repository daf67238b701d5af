"""All that a caller gets of an answer besides the model's own numbers, as features."""

from __future__ import annotations

import time
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from proxy import rpc, wire
from proxy.pb import open_inference_pb2 as pb
from tuning.demo.digits import MODEL

PRINCIPAL = "x-principal"
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer, as its caller got it."""

    seconds: float
    code: str
    details: str
    keys: tuple[tuple[str, str], ...]
    """Of initial and trailing metadata, with their values, in order."""
    length: int
    head: bytes
    """The answer's message without the raw outputs and the request's id."""
    order: tuple[int, ...]
    """Field numbers in the order of the wire."""
    outputs: tuple[int, ...]
    """Bytes of each raw output."""

    @property
    def form(self) -> tuple[object, ...]:
        """Everything but the time."""
        return (self.code, self.details, self.keys, self.head, self.order, self.outputs)


class Caller:
    """A client that asks about one image after the other, all on one connection.

    Args:
        address: of a sidecar.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._infer = self._channel.unary_unary(rpc.INFER.path)

    def ask(self, image: NDArray[np.float32], principal: str) -> Seen:
        """Send one image (1, H, W) in somebody's name and note everything about the answer."""
        metadata = ((PRINCIPAL, principal),)
        data = wire.build_infer_request(
            MODEL, "", [("image", "FP32", (1, *image.shape), image.tobytes())], request_id="q"
        )
        started = time.perf_counter()
        try:
            body, call = self._infer.with_call(data, timeout=_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            body, call = b"", error
        seconds = time.perf_counter() - started
        return _seen(seconds, body, call)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _seen(seconds: float, body: bytes, call: grpc.Call) -> Seen:
    message = pb.ModelInferResponse.FromString(body)
    sizes = tuple(len(output) for output in message.raw_output_contents)
    message.ClearField("raw_output_contents")
    metadata = (*(call.initial_metadata() or ()), *(call.trailing_metadata() or ()))
    return Seen(
        seconds,
        call.code().name,
        call.details() or "",
        tuple((item.key, str(item.value)) for item in metadata),
        len(body),
        message.SerializeToString(),
        tuple(_field_numbers(body)),
        sizes,
    )


def _field_numbers(body: bytes) -> list[int]:
    """Field numbers of a message, in order; our answers have length-delimited fields only."""
    at, found = 0, []
    while at < len(body):
        found.append(body[at] >> 3)
        length, shift = 0, 0
        at += 1
        while True:
            byte = body[at]
            length |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if byte < 0x80:
                break
        at += length
    return found
