"""The connection to Triton: opaque calls with deadlines, errors as our own exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from proxy.errors import ProxyError, UpstreamError, UpstreamUnavailable

Metadata = Sequence[tuple[str, str | bytes]]

# Reconnect quickly when Triton comes back: it is in the same pod, a storm of one is no storm.
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long one attempt may take, handshake included; it delays no attempt after a refusal.
    ("grpc.min_reconnect_backoff_ms", 2000),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a unary call to Triton returned."""

    data: bytes
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()


class Upstream:
    """One long-lived HTTP/2 connection to Triton, shared by all requests of the process.

    Args:
        address: host:port of Triton's gRPC endpoint.
        max_message_bytes: largest message either way.
    """

    def __init__(self, address: str, *, max_message_bytes: int) -> None:
        self._channel = grpc.aio.insecure_channel(
            address,
            options=(
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # Never through a proxy of the environment: the upstream is a neighbour.
                ("grpc.enable_http_proxy", 0),
                *_RECONNECT,
            ),
        )
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable] = {}

    async def call(
        self, method: str, data: bytes, *, timeout_s: float | None, metadata: Metadata | None = None
    ) -> Answer:
        """Send `data` to the unary RPC `method` (its full path) and return the answer's bytes.

        Raises:
            UpstreamError: Triton answered with an error.
            UpstreamUnavailable: Triton could not be reached or went away.
        """
        rpc = self._unary.get(method)
        if rpc is None:
            rpc = self._unary[method] = self._channel.unary_unary(method)
        call = rpc(data, timeout=timeout_s, metadata=metadata)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise self.translate(error) from None
        return Answer(answer, await call.initial_metadata(), await call.trailing_metadata())

    def stream(
        self, method: str, *, timeout_s: float | None, metadata: Metadata | None = None
    ) -> grpc.aio.StreamStreamCall:
        """Open the bidirectional RPC `method`; errors it raises go through `translate`."""
        return self._channel.stream_stream(method)(timeout=timeout_s, metadata=metadata)

    def translate(self, error: grpc.aio.AioRpcError) -> ProxyError:
        """Our exception for an error of a call."""
        code: int = error.code().value[0]
        ready = self._channel.get_state() is grpc.ChannelConnectivity.READY
        if error.code() is grpc.StatusCode.UNAVAILABLE and not ready:
            # gRPC's own text names the address and the socket error; clients need neither.
            return UpstreamUnavailable("the model server cannot be reached")
        return UpstreamError(code, error.details() or "", tuple(error.trailing_metadata() or ()))

    async def close(self) -> None:
        """Close the connection; calls in flight end with CANCELLED."""
        await self._channel.close()
