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
from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError

from proxy import rpc, wire
from proxy.errors import Draining, InvalidRequest, ProxyError, UpstreamError
from proxy.flow import Flow
from proxy.headers import to_client
from proxy.inflow.untaken import Untaken
from proxy.pb import open_inference_pb2 as pb
from proxy.pipeline import Pipeline
from proxy.status import status_of
from proxy.tasks import Tasks
from proxy.unpacking import Unpacker, is_packed
from proxy.upstream import Metadata, Upstream, UpstreamStream

_GRPC_ERROR = ("triton_grpc_error", "true")
"""The client's metadata that turns the first error into the stream's status. Triton takes exactly
this value."""

_MOST_DUE = 1024
"""Requests of a stream waiting for their answers before the next is read, where answers are told
to be in order. It bounds what a client can have waiting here."""

_IDLE_S = 0.1
"""A stream is at rest when it was so twice, so long apart, seconds."""
_FIRST_S = 2.0
"""A stream that is opened while the server goes gets this long for its first message, seconds."""
_ASK_TIMEOUT_S = 2.0
_MOST_MODELS = 64
"""Models of a stream whose kind is remembered."""


class _Refused(NamedTuple):
    """An answer of ours, waiting for its turn."""

    error: ProxyError
    request_id: str


class StreamSession:
    """One client's stream and the stream to Triton that belongs to it.

    Args:
        flow: the stream's own facts; each message gets a flow of its own.
        scrub: takes the text out of Triton's errors, where policy wants that.
        unpacker: takes compressed messages; one that cannot be unpacked ends the stream.
        untaken: counts the answers that the client has not taken.
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
        unpacker: Unpacker,
        untaken: Untaken,
    ) -> None:
        self._pipeline = pipeline
        self._upstream = upstream
        self._context = context
        self._flow = flow
        self._metadata = metadata
        self._scrub = scrub
        self._unpacker = unpacker
        self._untaken = untaken
        self._peer = str(context.peer())
        self._scrubs = pipeline.parts.config.scrub_errors
        self._ends_on_error = _GRPC_ERROR in (metadata or ())
        self._due: deque[_Refused | None] = deque()
        """Answers due in order: None is one of Triton's. Its head is never one of ours."""
        self._settled = asyncio.Event()
        self._in_order: dict[str, bool] = {}
        """By model: whether it gives exactly one answer a request, in order."""
        self._taken = 0
        """Requests begun to be taken."""
        self._is_taking = False
        self._is_open_ended = False
        """Whether a request was sent whose answers cannot be counted."""
        self._writing = asyncio.Lock()
        self._has_begun = False
        """Whether the client has been sent something, after which initial metadata is too late."""

    async def run(self) -> None:
        """Pump until both sides are done; raises ProxyError for the stream's final status."""
        with self._flow.calling("stream", self._metadata) as metadata:
            await self._pump(metadata)

    async def _pump(self, metadata: Metadata | None) -> None:
        deadline_s = self._flow.deadline_s
        call = self._upstream.stream(
            rpc.STREAM_INFER.path,
            timeout_s=None if deadline_s is None else max(0.0, deadline_s - time.monotonic()),
            metadata=metadata,
        )
        tasks = Tasks()
        up = tasks.start(self._pump_up(call), quiet=True)
        down = tasks.start(self._pump_down(call), quiet=True)
        leave = tasks.start(self._leave(), quiet=True)
        try:
            await asyncio.wait({up, down, leave}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and up.exception() is None:
                await asyncio.wait({down})
            for task in (up, down, leave):
                if task.done() and (error := task.exception()) is not None:
                    raise error
        finally:
            call.cancel()
            await tasks.stop()

    async def _leave(self) -> None:
        """End a stream at rest when the server goes: it may be silent for hours."""
        await self._pipeline.streams_end.wait()
        first_s = self._flow.arrival_s + _FIRST_S
        seen = -1
        while True:
            has_begun = self._taken > 0 or time.monotonic() >= first_s
            at_rest = has_begun and not (self._is_taking or self._due or self._is_open_ended)
            if at_rest and seen == self._taken:
                raise Draining("the server is shutting down")
            seen = self._taken if at_rest else -1
            await asyncio.sleep(_IDLE_S)

    # -- client to Triton ------------------------------------------------------------------------

    async def _pump_up(self, call: UpstreamStream) -> None:
        while (data := await self._context.read()) is not grpc.aio.EOF:
            self._taken += 1
            self._is_taking = True
            try:
                if is_packed(data):
                    async with self._unpacker.unpacked(data) as plain:
                        await self._take(call, plain)
                else:
                    with self._pipeline.message(len(data)):
                        await self._take(call, data)
            finally:
                self._is_taking = False
            while len(self._due) >= _MOST_DUE:
                self._settled.clear()
                await self._settled.wait()
        await call.done_writing()

    async def _take(self, call: UpstreamStream, data: bytes) -> None:
        flow = self._message_flow()
        outcome = "cancelled"
        try:
            message = await self._pipeline.inspect(flow, data, self._metadata)
            outcome = "ok"
        except ProxyError as error:
            outcome = error.kind
            if flow.trace is not None:
                flow.trace.failed(error)
            await self._refuse(_Refused(error, flow.client_id))
            return
        finally:
            self._pipeline.finish(flow, outcome)
        if await self._keeps_order(flow.model):
            self._due.append(None)
        else:
            self._is_open_ended = True
        if not await call.write(message):
            await asyncio.Event().wait()  # until the other pump has learnt why, and ends this one

    def _message_flow(self) -> Flow:
        stream, now = self._flow, time.monotonic()
        return Flow(
            uuid.uuid4().hex,
            now,
            stream.deadline_s,
            stream.principal,
            streamed=True,
            trace=None if stream.trace is None else stream.trace.message(now),
        )

    async def _keeps_order(self, model: str) -> bool:
        """Whether this model gives exactly one answer a request, in order; False if unknown."""
        known = self._in_order.get(model)
        if known is None:
            spec = self._pipeline.parts.find(model).spec
            known = await self._look_up(model) if spec is None else not spec.decoupled
            if len(self._in_order) < _MOST_MODELS:
                self._in_order[model] = known
        return known

    async def _look_up(self, model: str) -> bool:
        """Ask Triton about a model that is not configured here, once a stream."""
        if len(self._in_order) >= _MOST_MODELS:
            return False
        try:
            answer = await self._upstream.call(
                rpc.RPCS["ModelConfig"].path,
                pb.ModelConfigRequest(name=model).SerializeToString(),
                timeout_s=_ASK_TIMEOUT_S,
                metadata=self._metadata,
            )
            config = pb.ModelConfigResponse.FromString(answer.data).config
        except UpstreamError as error:
            # A model that is not there gives each of its requests one error, in order.
            return error.code_name == "NOT_FOUND"
        except (ProxyError, DecodeError):
            return False
        return not config.model_transaction_policy.decoupled

    async def _refuse(self, refused: _Refused) -> None:
        if self._due:
            self._due.append(refused)
        else:
            await self._answer(refused)

    async def _answer(self, refused: _Refused) -> None:
        if self._ends_on_error:
            raise refused.error
        text = status_of(refused.error)[1]
        async with self._writing:
            self._has_begun = True
            await self._write(wire.stream_error(refused.request_id, text))

    async def _write(self, message: bytes) -> None:
        """Send the client a message; returns when it has been taken."""
        with self._untaken.sending(self._peer, len(message)):
            await self._context.write(message)

    # -- Triton to client ------------------------------------------------------------------------

    async def _pump_down(self, call: UpstreamStream) -> None:
        while (data := await call.read()) is not None:
            async with self._writing:
                await self._begin(call)
                await self._write(self._passed(data))
            if self._due and self._is_due(data):
                await self._settle()
        while self._due:
            await self._settle()
        async with self._writing:
            await self._begin(call)
        trailing = to_client(await call.trailing_metadata())
        if trailing:
            self._context.set_trailing_metadata(trailing)

    async def _begin(self, call: UpstreamStream) -> None:
        """Pass Triton's initial metadata, if there is any and it is not too late."""
        if self._has_begun:
            return
        self._has_begun = True
        initial = to_client(await call.initial_metadata())
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

    def _is_due(self, data: bytes) -> bool:
        """Whether an answer of Triton's is one that has its place in the order."""
        if all(self._in_order.values()):
            return True
        try:
            answer = wire.StreamResponse.parse(data).response
        except InvalidRequest:
            return True
        # An error may come without the model's name.
        return answer is None or self._in_order.get(answer.head.model_name, True)

    async def _settle(self) -> None:
        """One of Triton's answers has come: give the answers of ours that waited for it."""
        self._due.popleft()
        while self._due and (refused := self._due[0]) is not None:
            self._due.popleft()
            await self._answer(refused)
        self._settled.set()
