"""ModelStreamInfer: each message inspected on its way up, answers passed on their way down.

Two pumps share a stream. What the proxy answers itself (a refused message) keeps its place: where
the model gives one answer a request, it waits for the answers before it. In band, as Triton does
it, or as the status that ends the stream when the client asked for that (`triton_grpc_error`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable

import grpc

from proxy import rpc, wire
from proxy.errors import InvalidRequest, ProxyError, UpstreamError
from proxy.flow import Flow
from proxy.pipeline import Pipeline
from proxy.status import status_of
from proxy.tasks import Tasks
from proxy.upstream import Metadata, Upstream

_GRPC_ERROR = "triton_grpc_error"


class StreamSession:
    """One client's stream and the stream to Triton that belongs to it.

    Args:
        flow: the stream's own facts; each message gets a flow of its own.
        scrub: takes the text out of Triton's errors, where policy wants that.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        upstream: Upstream,
        context: grpc.aio.ServicerContext,
        flow: Flow,
        metadata: Metadata | None,
        *,
        scrub: Callable[[UpstreamError], UpstreamError],
    ) -> None:
        self._pipeline = pipeline
        self._upstream = upstream
        self._context = context
        self._flow = flow
        self._metadata = metadata
        self._scrub = scrub
        self._scrubs = pipeline.parts.config.scrub_errors
        self._ends_on_error = any(
            key == _GRPC_ERROR and value in ("true", "1") for key, value in metadata or ()
        )
        self._waiting: deque[ProxyError | None] = deque()
        """Answers due in order: None is one of Triton's, an error is one of ours."""
        self._ids: deque[str] = deque()
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Pump until both sides are done; raises ProxyError for the stream's final status."""
        deadline_s = self._flow.deadline_s
        call = self._upstream.stream(
            rpc.STREAM_INFER.path,
            timeout_s=None if deadline_s is None else max(0.0, deadline_s - time.monotonic()),
            metadata=self._metadata,
        )
        tasks = Tasks()
        up = tasks.start(self._pump_up(call), quiet=True)
        down = tasks.start(self._pump_down(call), quiet=True)
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and up.exception() is None:
                await asyncio.wait({down})
            for task in (up, down):
                if task.done() and (error := task.exception()) is not None:
                    raise error
        finally:
            call.cancel()
            await tasks.stop()

    # -- client to Triton ------------------------------------------------------------------------

    async def _pump_up(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            data = await self._context.read()
            if data is grpc.aio.EOF:
                break
            await self._take(call, data)
        await call.done_writing()

    async def _take(self, call: grpc.aio.StreamStreamCall, data: bytes) -> None:
        flow = self._message_flow()
        outcome = "cancelled"
        try:
            message = await self._pipeline.inspect(flow, data, self._metadata)
            outcome = "ok"
        except ProxyError as error:
            outcome = error.kind
            await self._refuse(flow, error)
            return
        finally:
            self._pipeline.finish(flow, outcome)
        if self._keeps_order(flow.model):
            self._waiting.append(None)
        try:
            await call.write(message)
        except (asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AioRpcError):
            # Triton has ended the stream; the other pump learns its status.
            await asyncio.Event().wait()

    def _message_flow(self) -> Flow:
        stream = self._flow
        return Flow(
            uuid.uuid4().hex, time.monotonic(), stream.deadline_s, stream.principal, streamed=True
        )

    def _keeps_order(self, model: str) -> bool:
        """Whether this model gives exactly one answer a request, in order."""
        spec = self._pipeline.parts.find(model).spec
        return spec is not None and not spec.decoupled

    async def _refuse(self, flow: Flow, error: ProxyError) -> None:
        if self._waiting and self._keeps_order(flow.model):
            self._waiting.append(error)
            self._ids.append(flow.client_id)
        else:
            await self._answer(error, flow.client_id)

    async def _answer(self, error: ProxyError, request_id: str) -> None:
        if self._ends_on_error:
            raise error
        async with self._writing:
            await self._context.write(wire.stream_error(request_id, status_of(error)[1]))

    # -- Triton to client ------------------------------------------------------------------------

    async def _pump_down(self, call: grpc.aio.StreamStreamCall) -> None:
        first = True
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                if first:
                    await self._pass_initial_metadata(call)
                    first = False
                async with self._writing:
                    await self._context.write(self._passed(data))
                await self._settle()
        except grpc.aio.AioRpcError as error:
            raise self._upstream.translate(error) from None
        if await call.code() is not grpc.StatusCode.OK:
            raise UpstreamError(
                (await call.code()).value[0],
                await call.details() or "",
                tuple(await call.trailing_metadata() or ()),
            )
        while self._waiting:
            await self._settle()
        trailing = tuple(await call.trailing_metadata() or ())
        if trailing:
            self._context.set_trailing_metadata(trailing)

    async def _pass_initial_metadata(self, call: grpc.aio.StreamStreamCall) -> None:
        initial = tuple(await call.initial_metadata() or ())
        if initial:
            await self._context.send_initial_metadata(initial)

    def _passed(self, data: bytes) -> bytes:
        """An answer as the client may see it."""
        if not self._scrubs:
            return data
        try:
            answer = wire.StreamResponse.parse(data)
        except InvalidRequest:
            return data
        if not answer.error:
            return data
        scrubbed = self._scrub(UpstreamError(grpc.StatusCode.UNKNOWN.value[0], answer.error))
        return wire.stream_error(answer.request_id, scrubbed.details)

    async def _settle(self) -> None:
        """One of Triton's answers has come: give the answers of ours that waited for it."""
        if self._waiting:
            self._waiting.popleft()
        while self._waiting and (error := self._waiting[0]) is not None:
            self._waiting.popleft()
            await self._answer(error, self._ids.popleft())
