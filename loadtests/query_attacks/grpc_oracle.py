"""A served model as an attacker reaches it: real gRPC, one image a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from proxy.rpc import INFER
from proxy.status import BUSY
from tuning.evaluate.oracle import Answer, Image

Principal = Callable[[int], str]
"""Number of a query, from 1 -> who sends it."""


class Identities:
    """A principal that the attacker can leave for a fresh one."""

    def __init__(self, name: str = "attacker") -> None:
        self._name, self._number = name, 0

    def __call__(self, number: int) -> str:
        """The same for every query until `renew`."""
        return f"{self._name}-{self._number}"

    def renew(self) -> None:
        """Become somebody else."""
        self._number += 1


def sybils(name: str = "sybil") -> Principal:
    """Every query sent by another principal."""
    return lambda number: f"{name}-{number}"


class GrpcOracle:
    """Asks one address, or several in turn, over one connection to each.

    Args:
        addresses: host:port of each replica; queries go to them in turn.
        model: name of the served model.
        header: metadata key that carries the principal.
        principal: who sends each query.
        input_name: a float32 input, (1, C, H, W) in [0, 1].
        output_name: a float32 output, (1, K).
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        model: str,
        header: str = "x-principal",
        principal: Principal | None = None,
        input_name: str = "image",
        output_name: str = "logits",
        timeout_s: float = 10.0,
    ) -> None:
        # A pool of its own: two oracles in one process are two clients with two connections.
        option = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.insecure_channel(address, option) for address in addresses]
        self._calls = [self._call(channel) for channel in self._channels]
        self._model, self._input, self._output = model, input_name, output_name
        self._header, self._timeout_s = header, timeout_s
        self._principal = Identities() if principal is None else principal
        self.queries = 0
        """Sent so far."""

    @staticmethod
    def _call(channel: grpc.Channel) -> Any:
        return channel.unary_unary(
            INFER.path,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()

    def ask(self, image: Image) -> Answer:
        """The answer to one image, sent as it is.

        Raises:
            RuntimeError: an error that is no refusal: the measurement is broken, not won.
        """
        call = self._calls[self.queries % len(self._calls)]
        self.queries += 1
        sender = ((self._header, self._principal(self.queries)),)
        try:
            response, done = call.with_call(
                self._request(image), timeout=self._timeout_s, metadata=sender
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE and error.details() == BUSY:
                return Answer(None, _texts(error.trailing_metadata()))
            told = f"query {self.queries}: {error.code().name}: {error.details()}"
            raise RuntimeError(told) from error
        return Answer(self._logits(response), _texts(done.trailing_metadata()))

    def _request(self, image: Image) -> service_pb2.ModelInferRequest:
        request = service_pb2.ModelInferRequest(
            model_name=self._model,
            raw_input_contents=[np.ascontiguousarray(image, "<f4").tobytes()],
        )
        request.inputs.add(name=self._input, datatype="FP32", shape=(1, *image.shape))
        request.outputs.add(name=self._output)
        return request

    def _logits(self, response: service_pb2.ModelInferResponse) -> np.ndarray[Any, Any]:
        names = [output.name for output in response.outputs]
        raw = response.raw_output_contents[names.index(self._output)]
        return np.frombuffer(raw, "<f4").copy()


def _texts(metadata: Sequence[tuple[str, str | bytes]] | None) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in metadata or () if isinstance(value, str))
