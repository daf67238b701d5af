"""The protocol front: bytes in, bytes or a status out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import grpc

from proxy import regions, rpc
from proxy.config import Config
from proxy.errors import DeadlineExceeded, Overloaded, ProxyError, RpcRefused, UpstreamError
from proxy.flow import Flow, new_request_id
from proxy.headers import to_client, to_upstream
from proxy.identity import principal as identity
from proxy.inflow.untaken import Untaken
from proxy.inflow.waiting import Waiting
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.pipeline import Pipeline
from proxy.status import status_of
from proxy.stream import StreamSession
from proxy.unpacking import Unpacker, is_packed
from proxy.upstream import Answer, Metadata, Upstream

if TYPE_CHECKING:  # OpenTelemetry is loaded only when tracing is configured
    from proxy.tracing.tracing import Tracing

log = logging.getLogger(__name__)

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_NOTED_S = 0.02
"""After a paced answer its request is recorded, seconds."""
_HEALTH_CAPACITY = 64
"""Health RPCs waiting for Triton at a time. They take no permit, so that they are still answered
when inference is at its bound or draining; this is theirs."""

_SCRUBBED = "the model server reported an error"
_INTERNAL = ProxyError("internal error")
_NOT_READY = pb.ServerReadyResponse(ready=False).SerializeToString()
"""The same bytes for ModelReady."""


_Unary = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class TritonService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves Triton's RPCs as opaque bytes; unknown methods stay UNIMPLEMENTED.

    Args:
        pipeline: takes the inference requests.
        upstream: takes everything else that policy allows.
        unpacker: takes compressed messages.
        waiting: counts the calls that wait for their client.
        untaken: counts the answers that clients have not taken.
        tracing: records requests; None: none.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        upstream: Upstream,
        metrics: Metrics,
        tracing: Tracing | None = None,
        *,
        unpacker: Unpacker,
        waiting: Waiting,
        untaken: Untaken,
    ) -> None:
        self._waiting = waiting
        self._untaken = untaken
        self._pipeline = pipeline
        self._upstream = upstream
        self._metrics = metrics
        self._tracing = tracing
        self._unpacker = unpacker
        self._health_in_flight = 0
        self._handlers = {path: self._handler(r) for path, r in rpc.BY_PATH.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a method path (gRPC's hook)."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, method: rpc.Rpc) -> grpc.RpcMethodHandler:
        if method is rpc.INFER:
            return self._unary(self._infer, refuses_early=True)
        if method is rpc.STREAM_INFER:
            return grpc.stream_stream_rpc_method_handler(self._streaming)
        return self._unary(self._opaque(method))

    def _unary(self, handle: _Unary, *, refuses_early: bool = False) -> grpc.RpcMethodHandler:
        """A handler of messages that may be compressed.

        For gRPC it is one of a stream of requests: such a handler begins with the call, not when
        its message is there, so that messages on their way are counted, and refused unread.
        """

        async def taken(_: object, context: grpc.aio.ServicerContext) -> bytes:
            data = b""
            try:
                # Of a call that will be refused, the message is not waited for.
                if not (refuses_early and self._refuses()):
                    data = await self._message(context)
                if is_packed(data):
                    answer = await self._unpacked(handle, data, context)
                else:
                    answer = await handle(data, context)
                self._untaken.until_done(context.peer(), len(answer))
                return answer
            except grpc.aio.AbortError as error:
                data = b""
                _let_go(error)
                raise

        return grpc.stream_unary_rpc_method_handler(taken)

    def _refuses(self) -> bool:
        try:
            self._pipeline.check()
        except ProxyError:
            return True
        return False

    async def _message(self, context: grpc.aio.ServicerContext) -> bytes:
        try:
            return await self._waiting.message(context)
        except ProxyError as error:
            await self._abort(context, error)

    async def _unpacked(
        self, handle: _Unary, data: bytes, context: grpc.aio.ServicerContext
    ) -> bytes:
        try:
            async with self._unpacker.unpacked(data) as plain:
                return await handle(plain, context)
        except ProxyError as error:  # the message's: handlers end with statuses of their own
            await self._abort(context, error)

    # -- inference -----------------------------------------------------------------------------

    async def _infer(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        pipeline = self._pipeline
        flow = self._flow(context, await self._named(context))
        metadata = self._traced(flow, rpc.INFER, context)
        size = len(data)
        try:
            leave = pipeline.admit(flow.principal, size=size)
        except ProxyError as error:
            _failed(flow, error)
            pipeline.finish(flow, error.kind)
            await self._abort(context, error)
        outcome = "cancelled"
        try:
            answer = await pipeline.infer(flow, data, metadata)
            flow.bytes_out = len(answer.data)
            await self._pass_metadata(context, answer, flow.annotations)
            outcome = "ok"
        except ProxyError as error:
            outcome = error.kind
            _failed(flow, error)
            await self._abort(context, error, flow.annotations)
        except asyncio.CancelledError:
            outcome = _cut_short(flow)
            raise
        # One of the few places that catch everything: gRPC would send the exception's text.
        except Exception:
            outcome = ProxyError.kind
            log.exception("request %s failed", flow.request_id)
            await self._abort(context, _INTERNAL)
        finally:
            leave()
            pipeline.release(size)
            if "pace" in flow.stage_s:
                # Once the answer is on its way: noting a suspicious request takes longer.
                asyncio.get_running_loop().call_later(_NOTED_S, pipeline.finish, flow, outcome)
            else:
                pipeline.finish(flow, outcome)
        return answer.data

    async def _streaming(self, messages: object, context: grpc.aio.ServicerContext) -> None:
        try:
            await self._stream(messages, context)
        except grpc.aio.AbortError as error:
            _let_go(error)
            raise

    async def _stream(self, messages: object, context: grpc.aio.ServicerContext) -> None:
        pipeline = self._pipeline
        flow = self._flow(context, await self._named(context), streamed=True)
        metadata = self._traced(flow, rpc.STREAM_INFER, context)
        try:
            leave = pipeline.admit(flow.principal)
        except ProxyError as error:
            _failed(flow, error)
            pipeline.finish(flow, error.kind)
            await self._abort(context, error)
        upstream, scrub = self._upstream, self._scrub
        try:
            session = StreamSession(
                *(pipeline, upstream, context, flow, metadata),
                scrub=scrub,
                unpacker=self._unpacker,
                untaken=self._untaken,
            )
            with pipeline.stream():
                await session.run()
            flow.outcome = "ok"
        except ProxyError as error:
            flow.outcome = error.kind
            _failed(flow, error)
            await self._abort(context, error)
        except asyncio.CancelledError:
            flow.outcome = _cut_short(flow)
            raise
        except Exception:
            flow.outcome = ProxyError.kind
            log.exception("stream %s failed", flow.request_id)
            await self._abort(context, _INTERNAL)
        finally:
            leave()
            pipeline.release()
            if flow.trace is not None:
                flow.trace.finish(flow)

    # -- everything else -----------------------------------------------------------------------

    def _opaque(self, method: rpc.Rpc) -> _Unary:
        """A handler that forwards one RPC unseen, if policy allows it."""
        is_readiness = method.name in ("ServerReady", "ModelReady")

        async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                principal = self._principal(context)
                self._authorise(method, principal)
                if method.group != "health":
                    self._pipeline.limiter.take(principal, len(data))
                if method.group == "shared-memory":
                    in_use = self._config.upstream_shared_memory != "off"
                    regions.refuse_call(method, data, in_use=in_use)
                if is_readiness and self._pipeline.departing:
                    return _NOT_READY
                with self._permit(method, principal):
                    answer = await self._forward(method, data, context)
                await self._pass_metadata(context, answer, ())
                return regions.without_ours(method, answer.data)
            except ProxyError as error:
                await self._abort(context, error)
            except Exception:
                log.exception("%s failed", method.name)
                await self._abort(context, _INTERNAL)

        return handle

    def _authorise(self, method: rpc.Rpc, principal: str) -> None:
        if method.group in rpc.ALWAYS_ON:
            return
        allowed = method.group in self._config.rpc.allow
        if allowed and self._pipeline.limiter.may_call(principal, method):
            return
        self._metrics.rpc_refused(method.group)
        raise RpcRefused(
            f"{method.name} belongs to the group {method.group!r}, which is not allowed here "
            f"(rpc.allow)"
        )

    @contextlib.contextmanager
    def _permit(self, method: rpc.Rpc, principal: str) -> Iterator[None]:
        if method.group != "health":
            leave = self._pipeline.admit(principal)
            try:
                yield
            finally:
                leave()
                self._pipeline.release()
            return
        if self._health_in_flight >= _HEALTH_CAPACITY:
            raise Overloaded("too many health requests in flight")
        self._health_in_flight += 1
        try:
            yield
        finally:
            self._health_in_flight -= 1

    async def _forward(
        self, method: rpc.Rpc, data: bytes, context: grpc.aio.ServicerContext
    ) -> Answer:
        left_s = context.time_remaining()
        return await self._upstream.call(
            method.path,
            data,
            timeout_s=self._config.upstream_timeout_s if left_s is None else left_s,
            metadata=to_upstream(context.invocation_metadata()),
        )

    # -- parts -----------------------------------------------------------------------------------

    @property
    def _config(self) -> Config:
        return self._pipeline.parts.config

    def _flow(
        self, context: grpc.aio.ServicerContext, principal: str, *, streamed: bool = False
    ) -> Flow:
        now = time.monotonic()
        left_s = context.time_remaining()
        return Flow(
            request_id=new_request_id(),
            arrival_s=now,
            deadline_s=None if left_s is None else now + left_s,
            principal=principal,
            streamed=streamed,
        )

    def _traced(
        self, flow: Flow, method: rpc.Rpc, context: grpc.aio.ServicerContext
    ) -> Metadata | None:
        """What to send upstream with a request, which is recorded where that is wanted."""
        metadata = to_upstream(context.invocation_metadata())
        return metadata if self._tracing is None else self._tracing.begin(flow, method, metadata)

    def _principal(self, context: grpc.aio.ServicerContext) -> str:
        config, peer = self._config, str(context.peer())
        header, trusted = config.principal_header, config.trusted_proxies
        certified: tuple[str, ...] = ()
        if config.tls is not None and config.tls.client_ca_file is not None:
            certified = identity.names(context.auth_context())
        if header is not None and (
            trusted is None or identity.is_trusted(trusted, peer, certified)
        ):
            said = identity.told(header, context.invocation_metadata())
            if said:
                return identity.shortened(said)
        return identity.shortened(certified[0]) if certified else identity.host(peer)

    async def _named(self, context: grpc.aio.ServicerContext) -> str:
        try:
            return self._principal(context)
        except ProxyError as error:
            await self._abort(context, error)

    async def _pass_metadata(
        self,
        context: grpc.aio.ServicerContext,
        answer: Answer,
        annotations: Sequence[tuple[str, str]],
    ) -> None:
        if answer.initial_metadata:
            await context.send_initial_metadata(to_client(answer.initial_metadata))
        trailing = to_client(answer.trailing_metadata) + tuple(annotations)
        if trailing:
            context.set_trailing_metadata(trailing)

    def _scrub(self, error: UpstreamError) -> UpstreamError:
        if not self._config.scrub_errors:
            return error
        return UpstreamError(error.code, _SCRUBBED)

    async def _abort(
        self,
        context: grpc.aio.ServicerContext,
        error: ProxyError,
        annotations: Sequence[tuple[str, str]] = (),
    ) -> NoReturn:
        """End the call with the status for this error."""
        if isinstance(error, UpstreamError):
            error = self._scrub(error)
            code, text, trailing = _CODES[error.code], error.details, error.trailing_metadata
        else:
            code, text = status_of(error)
            trailing = ()
        await context.abort(code, text, to_client(trailing) + tuple(annotations))
        raise AssertionError("abort returned")  # unreachable: for the type checker


def _cut_short(flow: Flow) -> str:
    """The outcome of a call that gRPC cancels: for the client, or for its deadline."""
    if flow.deadline_s is not None and time.monotonic() >= flow.deadline_s:
        return DeadlineExceeded.kind
    return "cancelled"


def _let_go(error: grpc.aio.AbortError) -> None:
    """Free what the frames hold that an aborted call has left: its message, for one.

    The call's context keeps the exception, and the exception's frames the context. In that circle
    refused messages would stay until the garbage collector comes, gigabytes at times.
    """
    error.__context__ = None
    traceback.clear_frames(error.__traceback__)


def _failed(flow: Flow, error: ProxyError) -> None:
    if flow.trace is not None:
        flow.trace.failed(error)
