"""The life of one inference request: admit, read, forward, score, decide, act, finish.

Read `Pipeline.infer` from top to bottom for the order. Knows neither gRPC (`proxy.service` does)
nor tensor maths (`proxy.scoring` does).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from proxy import pacing, regions, wire
from proxy.aggregator import Aggregator
from proxy.answers import check_whose
from proxy.assessor import Assessor
from proxy.audit import AuditLog
from proxy.batcher import Batcher
from proxy.budget import Budget
from proxy.cancellations import Cancellations
from proxy.capture.capturer import Capturer
from proxy.config import Config, Model
from proxy.defence import Defence
from proxy.device import Device
from proxy.enforcer import Enforcer
from proxy.errors import (
    Draining,
    Overloaded,
    ProxyError,
    RpcRefused,
    SharedMemoryRefused,
    UpstreamError,
)
from proxy.evidence import Gatherer
from proxy.flow import Flow
from proxy.forward import Forward
from proxy.inspection import Inspection
from proxy.limits.limiter import Limiter
from proxy.metrics import Metrics
from proxy.observer import Observer
from proxy.reader import Reader
from proxy.records.record import is_notable
from proxy.records.records import Records
from proxy.shadow import Shadow
from proxy.shared_memory import SharedMemoryReader
from proxy.tasks import Tasks
from proxy.upstream import Answer, Metadata, Upstream
from proxy.validation import validate

if TYPE_CHECKING:  # torch is loaded only when some model has detectors
    from proxy.history.history import History

T = TypeVar("T")

FLUSH_AT = 256
"""Finished requests held back at most before they are counted."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the pipeline works with; replaced as a whole when the configuration changes."""

    config: Config
    find: Callable[[str], Defence]
    """The defence of a model name (one without a model when it is not configured)."""


class Pipeline:
    """Takes requests through their phases.

    Args:
        parts: configuration and defences; assign `parts` anew on reload.
        upstream: Triton.
        batcher: None when no model is scored (the process then never loads torch).
        records: told every scored request.
        captures: told every scored request, with its message.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        upstream: Upstream,
        batcher: Batcher | None,
        metrics: Metrics,
        audit: AuditLog,
        records: Records | None = None,
        captures: Capturer | None = None,
    ) -> None:
        self.parts = parts
        self.draining = False
        """New requests are refused."""
        self.departing = False
        """Readiness is denied; requests are still taken until `draining`."""
        self.streams_end = asyncio.Event()
        """Set when streams are to end as soon as they have nothing in flight."""
        self.in_flight = 0
        self.bytes_in_flight = 0
        """Of the requests' messages, as they came."""
        self.streams = 0
        """Open ones."""
        self.is_memory_short: Callable[[], bool] = lambda: False
        self.are_answers_stuck: Callable[[], bool] = lambda: False
        """Whether clients have left too many answers for there to be room for more."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self.limiter = Limiter(lambda: self.parts.config.limits, metrics.limited)
        self._upstream = upstream
        self._metrics = metrics
        self._audit = audit
        self._records = records
        self._captures = captures
        self._tasks = Tasks()
        self._cancellations = Cancellations(lambda: self.parts.config.upstream_cancels_per_second)
        self._device = Device(batcher)
        self._gatherer = gatherer = Gatherer(self._device, upstream, self._tasks)
        gatherer.keeps_pixels = any(
            taker is not None and taker.takes_pictures for taker in (records, captures)
        )
        self._assessor = Assessor(gatherer, self._device)
        aggregator = Aggregator(self._device, upstream, self._tasks)
        self._enforcer = Enforcer(self._assessor, aggregator, self._tasks)
        self._shadow = Shadow(self._device, upstream, self._tasks, self._disagree)
        self._observer = Observer(gatherer, self._record, self._shadow.watch)
        self._pacer = pacing.Pacer()
        self._finished: list[Flow] = []
        self._reader = Reader()
        self.shared_memory = SharedMemoryReader(upstream, max_bytes=parts.config.max_message_bytes)

    def use_batcher(self, batcher: Batcher | None) -> None:
        """Score with this batcher from now on."""
        self._device.batcher = batcher

    def use_history(self, history: History) -> None:
        """Remember queries in this history from now on."""
        self._gatherer.history = history

    # -- admission and finish ------------------------------------------------------------------

    def check(self, size: int = 0) -> None:
        """Refuse where `admit` would for all (Draining, Overloaded), and take nothing.

        Args:
            size: bytes of the message.
        """
        if self.draining:
            raise Draining("the server is shutting down")
        if self.in_flight >= self.parts.config.max_in_flight:
            raise Overloaded("too many requests in flight")
        self._check_memory(size)

    def _check_memory(self, size: int) -> None:
        if self.are_answers_stuck():
            raise Overloaded("too many answers that clients have not taken")
        # One alone is always taken, whatever else fills the memory.
        if not self.bytes_in_flight:
            return
        if self.bytes_in_flight + size > self.parts.config.most_bytes_in_flight:
            raise Overloaded("too many bytes in flight")
        if self.is_memory_short():
            raise Overloaded("too little memory")

    def admit(self, principal: str = "", *, size: int = 0) -> Callable[[], None]:
        """Take a permit, or refuse at once (Draining, Overloaded, Limited).

        `release` gives it and the bytes back, and what is returned the principal's own.
        """
        self.check(size)
        leave = self.limiter.enter(principal)
        self.bytes_in_flight += size
        self.in_flight += 1
        if self.in_flight == 1:
            self.idle.clear()
        return leave

    def release(self, size: int = 0) -> None:
        """Give a permit back."""
        self.bytes_in_flight -= size
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Count an open stream, of which there are fewer than permits; raises Overloaded."""
        if self.streams >= self.parts.config.most_streams:
            raise Overloaded("too many streams are open")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    @contextlib.contextmanager
    def message(self, size: int) -> Iterator[None]:
        """Count the bytes of a stream's message; raises Overloaded where there is no room."""
        self._check_memory(size)
        self.bytes_in_flight += size
        try:
            yield
        finally:
            self.bytes_in_flight -= size

    def finish(self, flow: Flow, outcome: str) -> None:
        """Record a request that has been answered, one way or the other."""
        flow.outcome = outcome
        flow.stage_s["total"] = time.monotonic() - flow.arrival_s
        if flow.trace is not None:
            flow.trace.finish(flow)
        self._finished.append(flow)
        if len(self._finished) >= FLUSH_AT:
            self.flush()
        self._log(flow)

    def flush(self) -> None:
        """Count the requests finished since the last call.

        Many at once: counting touches a lot of code, and one request at a time that code would be
        out of the processor's caches again whenever it is needed.
        """
        for flow in self._finished:
            defence = self.parts.find(flow.model)
            metrics = defence.metrics
            metrics.request(flow.action.value, flow.outcome)
            for stage, seconds in flow.stage_s.items():
                metrics.stage(stage, seconds)
            metrics.added(flow.stage_s["total"] - flow.waited_s)
            metrics.bytes(flow.bytes_in, flow.bytes_out)
            if flow.unscored:
                metrics.unscored(flow.unscored)
            _count(flow, defence)
        self._finished.clear()
        if self._records is not None:
            self._records.flush()
        self._metrics.in_flight.set(self.in_flight)

    def _record(self, flow: Flow) -> None:
        _count(flow, self.parts.find(flow.model))
        self._log(flow)

    def _log(self, flow: Flow) -> None:
        message, flow.request = flow.request, None
        if not flow.samples:
            return
        if self._captures is not None and message is not None:
            self._captures.note(flow, message, flow.pixels)
        if self._records is not None:
            self._records.note(flow)
        if is_notable(flow):
            self._audit.record(flow)

    def _disagree(self, flow: Flow, verdicts: Mapping[int, str]) -> None:
        if self._records is not None:
            self._records.disagree(flow, verdicts)

    async def close(self) -> None:
        """Stop work in the background; observed requests not yet scored are dropped."""
        await self._observer.close()
        await self._shadow.close()
        await self._tasks.stop()
        self._pacer.close()

    # -- the request ---------------------------------------------------------------------------

    async def infer(self, flow: Flow, data: bytes, metadata: Metadata | None) -> Answer:
        """Answer one ModelInfer request; raises ProxyError with what the client is to be told."""
        request, defence = self._read(flow, data)
        if request.common.uses_shared_memory:
            request = await self._shared(flow, defence, request, metadata)
        message = data if request.data is data else bytes(request.data)
        if defence.model is None or not defence.wants_scoring:
            flow.unscored = "unlisted_model" if defence.model is None else "no_detectors"
            return await self._pass(flow, defence, request, message, metadata)
        inspection = self._inspection(flow, defence, defence.model, request, metadata)
        forward = Forward(self._upstream, self._tasks, self._cancellations, inspection, message)
        try:
            if inspection.model.mode == "enforce":
                return await self._paced(inspection, self._enforced(inspection, forward))
            answer = await forward.once()
            self._observer.watch(inspection, answer)
            return answer
        except UpstreamError as error:
            defence.metrics.upstream_error(error.code_name)
            raise
        finally:
            _annotate(flow, defence)

    async def _enforced(self, inspection: Inspection, forward: Forward) -> Answer:
        answer = None
        try:
            answer = await self._enforcer.answer(inspection, forward)
        finally:
            self._shadow.watch(inspection, answer)
        return answer

    async def _pass(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        message: bytes,
        metadata: Metadata | None,
    ) -> Answer:
        """Forward a request that is not to be scored, with as little around it as can be."""
        timeout_s = flow.left_s(self.parts.config.upstream_timeout_s)
        started = time.monotonic()
        try:
            with flow.calling("upstream", metadata) as along:
                answer = await self._upstream.infer(
                    message, timeout_s=timeout_s, metadata=along, request=request
                )
            check_whose(answer.data, flow.client_id)
            return answer
        except UpstreamError as error:
            defence.metrics.upstream_error(error.code_name)
            raise
        finally:
            flow.stage_s["upstream"] = flow.waited_s = time.monotonic() - started
            _annotate(flow, defence)

    async def inspect(self, flow: Flow, data: bytes, metadata: Metadata | None) -> bytes:
        """One message of a stream: what to send on in its place; raises ProxyError to refuse it.

        A stream's answers cannot be told apart before they come, so there is no answer to look at.
        """
        request, defence = self._read(flow, data)
        if request.common.uses_shared_memory:
            request = await self._shared(flow, defence, request, metadata)
        message = data if request.data is data else bytes(request.data)
        if defence.model is None or not defence.wants_scoring:
            flow.unscored = "unlisted_model" if defence.model is None else "no_detectors"
            return message
        inspection = self._inspection(flow, defence, defence.model, request, metadata)
        if inspection.model.mode == "observe":
            self._observer.watch(inspection, None)
            return message
        purified = await self._paced(inspection, self._purified(inspection))
        if purified is not None and inspection.model.aggregate is not None:
            defence.metrics.aggregation("stream")
        return purified or message

    async def _purified(self, inspection: Inspection) -> bytes | None:
        """What to send on in a message's place; None: the message."""
        try:
            findings = await self._assessor.assess(inspection, None)
            return await self._assessor.act(inspection, findings)
        finally:
            self._shadow.watch(inspection, None)

    async def _paced(self, inspection: Inspection, work: Awaitable[T]) -> T:
        """The outcome of this work, not before its time where answers have a pace."""
        if not inspection.model.answer_quantum_ms:
            return await work
        try:
            outcome = await work
        except ProxyError:  # not a cancellation: nobody waits then
            await self._hold(inspection)
            raise
        await self._hold(inspection)
        return outcome

    async def _hold(self, inspection: Inspection) -> None:
        flow, started = inspection.flow, time.monotonic()
        quantum_s = inspection.model.answer_quantum_ms / 1000
        left_s = pacing.wait_s(flow.arrival_s, started, quantum_s, flow.deadline_s)
        await self._pacer.sleep_until(started + left_s)
        flow.stage_s["pace"] = time.monotonic() - started

    def _inspection(
        self,
        flow: Flow,
        defence: Defence,
        model: Model,
        request: wire.InferRequest,
        metadata: Metadata | None,
    ) -> Inspection:
        budget = Budget(model.budget_ms / 1000)
        longest_s = self.parts.config.upstream_timeout_s
        if self._captures is not None:
            flow.request = bytes(request.data)
        return Inspection(flow, defence, model, request, metadata, budget, longest_s)

    def _read(self, flow: Flow, data: bytes) -> tuple[wire.InferRequest, Defence]:
        """Parse and validate."""
        started = time.monotonic()
        flow.bytes_in = len(data)
        self.limiter.take(flow.principal, len(data))
        request, known = self._reader.read(data)
        flow.model, flow.version = request.common.model, request.common.version
        flow.client_id = request.request_id
        defence = self.parts.find(flow.model)
        self._reader.validate(request, known=known, non_finite=defence.non_finite)
        flow.stage_s["read"] = time.monotonic() - started
        if flow.trace is not None:
            flow.trace.stage("read", started)
        if defence.refused:
            raise RpcRefused(f"model {flow.model!r} is not served here")
        self.limiter.check_model(flow.principal, flow.model)
        return request, defence

    async def _shared(
        self, flow: Flow, defence: Defence, request: wire.InferRequest, metadata: Metadata | None
    ) -> wire.InferRequest:
        """Refuse shared memory, bring it inline, or let it pass unseen, as policy says."""
        regions.refuse_reference(request.common)
        mode = self.parts.config.shared_memory
        if mode == "deny":
            raise SharedMemoryRefused("shared memory is not allowed here; send the tensors inline")
        if flow.trace is not None:
            flow.trace.note("shared_memory", mode)
        if mode == "passthrough":
            for tensor in request.tensors:
                if tensor.shared_memory is not None:
                    defence.metrics.shared_memory_passthrough()
            return request
        timeout_s = flow.left_s(self.parts.config.upstream_timeout_s)
        changes = await self.shared_memory.read_all(
            request.tensors, timeout_s=timeout_s, metadata=metadata
        )
        if not changes:
            return request
        inline = wire.InferRequest.parse(request.replace(changes))
        validate(inline, non_finite=defence.non_finite)
        return inline


def _count(flow: Flow, defence: Defence) -> None:
    """Count a flow's samples."""
    metrics = defence.metrics
    if defence.population is not None and flow.samples:
        defence.population.add(flow)
    for sample in flow.samples:
        metrics.sample(sample.verdict.value)
        for detector, p in sample.p_values.items():
            metrics.p_value(detector, p)


def _annotate(flow: Flow, defence: Defence) -> None:
    if defence.model is not None and defence.model.annotate:
        verdict = "unknown" if flow.verdict is None else flow.verdict.value
        flow.annotations = (
            ("breakwater-verdict", verdict),
            ("breakwater-request-id", flow.request_id),
        )
