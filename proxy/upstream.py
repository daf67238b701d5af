"""The connection to Triton: opaque calls with deadlines, errors as our own exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import grpc

from proxy import rpc
from proxy.errors import ConfigError, ProxyError, UpstreamError, UpstreamUnavailable
from proxy.identity.settings import UpstreamTls
from proxy.identity.upstream_tls import credentials, reason

if TYPE_CHECKING:
    from proxy.wire import InferRequest

Metadata = Sequence[tuple[str, str | bytes]]

log = logging.getLogger(__name__)

# Reconnect quickly when Triton comes back: it is in the same pod, a storm of one is no storm.
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long one attempt may take, handshake included; it delays no attempt after a refusal.
    ("grpc.min_reconnect_backoff_ms", 2000),
)

_GRPC_TEXTS = (
    *("failed to connect to", "connections to all backends failing", "DNS resolution failed"),
    *("Socket closed", "recvmsg:", "sendmsg:", "Connection reset", "GOAWAY"),
)
"""How gRPC's own texts of a lost connection begin; nothing else tells them from the server's."""

_FROM_SERVER = "Error received from peer"
"""In gRPC's account of a status that came over the wire; those made on this side lack it."""
_RETELL_S = 60.0
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
_UNSETTLED = (grpc.StatusCode.CANCELLED.value[0], grpc.StatusCode.DEADLINE_EXCEEDED.value[0])


class Answer(NamedTuple):
    """What a unary call to Triton returned."""

    data: bytes
    initial_metadata: Metadata = ()
    trailing_metadata: Metadata = ()


class UpstreamStream:
    """A bidirectional call to Triton.

    Args:
        call: the call, just opened.
        translate: turns gRPC's error into ours.
    """

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall,
        translate: Callable[[grpc.aio.AioRpcError], ProxyError],
    ) -> None:
        self._call = call
        self._translate = translate

    async def write(self, data: bytes) -> bool:
        """Send one message. False: Triton has ended the call, and `read` has its status."""
        try:
            await self._call.wait_for_connection()
            # Past `call.write`, which puts INTERNAL in the place of the server's status when the
            # two cross on the way (grpcio 1.67.1: two thirds of the streams that fail while the
            # client is writing; tests/proxy/test_upstream.py).
            await self._call._cython_call.send_serialized_message(data)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError):
            return False
        return True

    async def done_writing(self) -> None:
        """Send nothing more."""
        with contextlib.suppress(grpc.aio.BaseError):  # ended already: `read` has the status
            await self._call.done_writing()

    async def read(self) -> bytes | None:
        """The next message; None at the end of a call that ended well.

        Raises:
            UpstreamError: Triton ended the call with an error.
            UpstreamUnavailable: Triton could not be reached or went away.
        """
        try:
            data = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from None
        return None if data is grpc.aio.EOF else data

    async def initial_metadata(self) -> Metadata:
        """Waits for the first sign of Triton."""
        return tuple(await self._call.initial_metadata() or ())

    async def trailing_metadata(self) -> Metadata:
        """Waits for the end."""
        return tuple(await self._call.trailing_metadata() or ())

    def cancel(self) -> None:
        """End the call if it has not ended."""
        self._call.cancel()


class Upstream:
    """One long-lived HTTP/2 connection to Triton, shared by all requests of the process.

    Args:
        address: host:port of Triton's gRPC endpoint.
        max_message_bytes: largest message either way.
        tls: how the server is known; None: without TLS.

    Raises:
        ConfigError: a certificate or key cannot be used.
    """

    def __init__(
        self, address: str, *, max_message_bytes: int, tls: UpstreamTls | None = None
    ) -> None:
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._tls = tls
        self._credentials = None if tls is None else credentials(tls)
        self._told_s = -_RETELL_S
        self._channel = self._connection()

    def _connection(self) -> grpc.aio.Channel:
        options: tuple[tuple[str, int | str], ...] = (
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.max_send_message_length", self._max_message_bytes),
            # Never through a proxy of the environment: the upstream is a neighbour.
            ("grpc.enable_http_proxy", 0),
            # Otherwise the next channel would get this one's connection; see `renew`.
            ("grpc.use_local_subchannel_pool", 1),
            *_RECONNECT,
        )
        if self._tls is None:
            return grpc.aio.insecure_channel(self._address, options=options)
        if self._tls.server_name:
            options += (("grpc.ssl_target_name_override", self._tls.server_name),)
        return grpc.aio.secure_channel(self._address, self._credentials, options=options)

    def renew_certificates(self) -> None:
        """Read the certificates again and use them for a new connection; see `renew`."""
        if self._tls is None:
            return
        try:
            self._credentials = credentials(self._tls)
        except ConfigError as error:
            log.error("the old certificates stay in use: %s", error)
            return
        log.info("upstream_tls: the new certificates are in use")
        self.renew()

    def renew(self) -> None:
        """Make calls on a new connection from now on; those under way go on where they are.

        For a connection that was lost without a word, when a router has forgotten it or the other
        machine is gone: TCP finds that out after a quarter of an hour. gRPC's own keepalive does
        not help, as Triton hangs up on whoever pings more often than every five minutes.
        """
        # The old channel goes with the last call that holds it.
        self._channel = self._connection()

    async def call(
        self, method: str, data: bytes, *, timeout_s: float | None, metadata: Metadata | None = None
    ) -> Answer:
        """Send `data` to the unary RPC `method` (its full path) and return the answer's bytes.

        Raises:
            UpstreamError: Triton answered with an error.
            UpstreamUnavailable: Triton could not be reached or went away.
        """
        # Past `channel.unary_unary`, which makes a task of its own, and three more objects, for
        # every call: `python -m loadtests.overhead` has the difference.
        deadline_s = None if timeout_s is None else time.time() + timeout_s
        call = self._channel._channel.call(method.encode(), deadline_s, None, None)
        try:
            answer = await call.unary_unary(data, tuple(metadata or ()), None)
        except asyncio.CancelledError:
            call.cancel("Locally cancelled by application!")
            raise
        status = await call.status()
        if not call.is_ok():
            raise self._error(
                status.code(),
                status.details() or "",
                status.trailing_metadata(),
                status.debug_error_string(),
            )
        return Answer(answer, await call.initial_metadata(), status.trailing_metadata())

    async def infer(
        self,
        data: bytes,
        *,
        timeout_s: float | None,
        metadata: Metadata | None = None,
        request: InferRequest | None = None,
    ) -> Answer:
        """Send a ModelInferRequest and return the answer; raises as `call`.

        Args:
            request: what `data` was read as, where the caller has it.
        """
        return await self.call(rpc.INFER.path, data, timeout_s=timeout_s, metadata=metadata)

    async def open(self) -> None:
        """Get ready; the connection itself is made when it is needed."""

    async def run(self) -> None:
        """What is to be done beside the calls, until cancelled."""

    def stream(
        self, method: str, *, timeout_s: float | None, metadata: Metadata | None = None
    ) -> UpstreamStream:
        """Open the bidirectional RPC `method` (its full path)."""
        call = self._channel.stream_stream(method)(timeout=timeout_s, metadata=metadata)
        return UpstreamStream(call, self._translate)

    def _translate(self, error: grpc.aio.AioRpcError) -> ProxyError:
        return self._error(
            error.code().value[0],
            error.details() or "",
            error.trailing_metadata(),
            error.debug_error_string(),
        )

    def _error(self, code: int, text: str, trailing: Metadata | None, account: str) -> ProxyError:
        # The channel may be ready again by now, so its state alone does not tell.
        lost = self._channel.get_state() is not grpc.ChannelConnectivity.READY
        if code == _UNAVAILABLE and (lost or text.startswith(_GRPC_TEXTS)):
            self._tell(text)
            # gRPC's own text names the address and the socket error; clients need neither.
            return UpstreamUnavailable("the model server cannot be reached")
        # The server ends a call at its deadline, or for the client, whether or not it is done.
        is_final = code not in _UNSETTLED and _FROM_SERVER in (account or "")
        return UpstreamError(code, text, tuple(trailing or ()), is_final=is_final)

    def _tell(self, text: str) -> None:
        """Log why the TLS handshake failed, once in a while."""
        why = "" if self._tls is None else reason(text)
        if why and time.monotonic() - self._told_s >= _RETELL_S:
            self._told_s = time.monotonic()
            log.error("no TLS with the model server at %s: %s", self._address, why)

    async def close(self) -> None:
        """Close the connection; calls in flight end with CANCELLED."""
        await self._channel.close()
