"""The protocol front: bytes in, bytes or a status out."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

import grpc

from proxy import rpc
from proxy.config import Config
from proxy.errors import ProxyError, RpcRefused, UpstreamError
from proxy.flow import Flow
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.pipeline import Pipeline
from proxy.status import status_of
from proxy.stream import StreamSession
from proxy.upstream import Answer, Metadata, Upstream

log = logging.getLogger(__name__)

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_LOCAL_METADATA = ("user-agent", "te", "content-type")
"""Belongs to one hop of the connection."""

_SCRUBBED = "the model server reported an error"


class TritonService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves Triton's RPCs as opaque bytes; unknown methods stay UNIMPLEMENTED.

    Args:
        pipeline: takes the inference requests.
        upstream: takes everything else that policy allows.
    """

    def __init__(self, pipeline: Pipeline, upstream: Upstream, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._upstream = upstream
        self._metrics = metrics
        self._handlers = {path: self._handler(r) for path, r in rpc.BY_PATH.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """The handler of a method path (gRPC's hook)."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, method: rpc.Rpc) -> grpc.RpcMethodHandler:
        if method is rpc.INFER:
            return grpc.unary_unary_rpc_method_handler(self._infer)
        if method is rpc.STREAM_INFER:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._opaque(method))

    # -- inference -----------------------------------------------------------------------------

    async def _infer(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        pipeline = self._pipeline
        flow = self._flow(context)
        try:
            pipeline.admit()
        except ProxyError as error:
            pipeline.finish(flow, error.kind)
            await self._abort(context, error)
        outcome = "cancelled"
        try:
            answer = await pipeline.infer(
                flow, data, self._forwarded(context.invocation_metadata())
            )
            flow.bytes_out = len(answer.data)
            outcome = "ok"
        except ProxyError as error:
            outcome = error.kind
            await self._abort(context, error, flow.annotations)
        # One of the two places that catch everything: gRPC would send the exception's text.
        except Exception:
            outcome = ProxyError.kind
            log.exception("request %s failed", flow.request_id)
            await self._abort(context, ProxyError("internal error"))
        finally:
            pipeline.release()
            pipeline.finish(flow, outcome)
        await self._pass_metadata(context, answer, flow.annotations)
        return answer.data

    async def _stream(self, messages: object, context: grpc.aio.ServicerContext) -> None:
        pipeline = self._pipeline
        flow = self._flow(context, streamed=True)
        try:
            pipeline.admit()
        except ProxyError as error:
            pipeline.finish(flow, error.kind)
            await self._abort(context, error)
        try:
            session = StreamSession(
                pipeline,
                self._upstream,
                context,
                flow,
                self._forwarded(context.invocation_metadata()),
                scrub=self._scrub,
            )
            await session.run()
        except ProxyError as error:
            await self._abort(context, error)
        except Exception:
            log.exception("stream %s failed", flow.request_id)
            await self._abort(context, ProxyError("internal error"))
        finally:
            pipeline.release()

    # -- everything else -----------------------------------------------------------------------

    def _opaque(
        self, method: rpc.Rpc
    ) -> Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]:
        """A handler that forwards one RPC unseen, if policy allows it."""
        changes_memory = method.group == "shared-memory" and not method.name.endswith("Status")

        async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            pipeline = self._pipeline
            config = pipeline.parts.config
            if method.group not in rpc.ALWAYS_ON and method.group not in config.rpc.allow:
                self._metrics.rpc_refused(method.group)
                await self._abort(
                    context,
                    RpcRefused(
                        f"{method.name} belongs to the group {method.group!r}, which is not "
                        f"allowed here (rpc.allow)"
                    ),
                )
            if pipeline.draining and method.name in ("ServerReady", "ModelReady"):
                return pb.ServerReadyResponse(ready=False).SerializeToString()
            try:
                answer = await self._upstream.call(
                    method.path,
                    data,
                    timeout_s=context.time_remaining() or config.upstream_timeout_s,
                    metadata=self._forwarded(context.invocation_metadata()),
                )
            except ProxyError as error:
                await self._abort(context, error)
            finally:
                if changes_memory:
                    pipeline.shared_memory.forget()
            await self._pass_metadata(context, answer, ())
            return answer.data

        return handle

    # -- parts -----------------------------------------------------------------------------------

    @property
    def _config(self) -> Config:
        return self._pipeline.parts.config

    def _flow(self, context: grpc.aio.ServicerContext, *, streamed: bool = False) -> Flow:
        now = time.monotonic()
        left_s = context.time_remaining()
        return Flow(
            request_id=uuid.uuid4().hex,
            arrival_s=now,
            deadline_s=None if left_s is None else now + left_s,
            principal=self._principal(context),
            streamed=streamed,
        )

    def _principal(self, context: grpc.aio.ServicerContext) -> str:
        header = self._config.principal_header
        if header is not None:
            for key, value in context.invocation_metadata():
                if key == header:
                    return str(value)
        return str(context.peer())

    def _forwarded(self, metadata: Sequence[tuple[str, str | bytes]]) -> Metadata | None:
        """The client's metadata without what belongs to this hop, or to our own annotations."""
        kept = [(key, value) for key, value in metadata if not _is_local(key)]
        return kept or None

    async def _pass_metadata(
        self,
        context: grpc.aio.ServicerContext,
        answer: Answer,
        annotations: Sequence[tuple[str, str]],
    ) -> None:
        if answer.initial_metadata:
            await context.send_initial_metadata(_passed(answer.initial_metadata))
        trailing = _passed(answer.trailing_metadata) + tuple(annotations)
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
    ) -> None:
        """End the call with the status for this error; raises."""
        if isinstance(error, UpstreamError):
            error = self._scrub(error)
            code, text, trailing = _CODES[error.code], error.details, error.trailing_metadata
        else:
            code, text = status_of(error)
            trailing = ()
        await context.abort(code, text, _passed(trailing) + tuple(annotations))


def _is_local(key: str) -> bool:
    return key in _LOCAL_METADATA or key.startswith(("grpc-", "breakwater-"))


def _passed(metadata: Metadata) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in metadata if not key.startswith("breakwater-"))
