"""The life of one inference request: admit, read, forward, score, decide, act, finish.

Read `Pipeline.infer` from top to bottom for the order. Knows neither gRPC (`proxy.service` does)
nor tensor maths (`proxy.scoring` does).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy import policy, rpc, wire
from proxy.audit import AuditLog
from proxy.batcher import Batcher
from proxy.case import Splice, Suspects
from proxy.config import Config, Model
from proxy.defence import Defence
from proxy.errors import (
    Blocked,
    DetectorFailed,
    Draining,
    InvalidTensor,
    Overloaded,
    ProxyError,
    RpcRefused,
    SharedMemoryRefused,
    UpstreamError,
)
from proxy.evidence import Budget, Findings, Gatherer, Image, timed
from proxy.flow import Action, Flow, SampleVerdict, Verdict
from proxy.metrics import Metrics
from proxy.reader import Reader
from proxy.shared_memory import SharedMemoryReader
from proxy.tasks import Tasks
from proxy.upstream import Answer, Metadata, Upstream
from proxy.validation import validate

FLUSH_AT = 256
"""Finished requests held back at most before they are counted."""

OBSERVE_CAPACITY = 64
"""Most requests scored beside the traffic at a time in observe mode; more go unscored, counted."""

_NO_VERDICT = SampleVerdict(Verdict.FAILED, float("nan"), float("nan"), {})


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
    """

    def __init__(
        self,
        parts: Parts,
        *,
        upstream: Upstream,
        batcher: Batcher | None,
        metrics: Metrics,
        audit: AuditLog,
    ) -> None:
        self.parts = parts
        self.draining = False
        self.in_flight = 0
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._upstream = upstream
        self._metrics = metrics
        self._audit = audit
        self._tasks = Tasks()
        self._observing = Tasks()
        self._finished: list[Flow] = []
        self._reader = Reader()
        self.shared_memory = SharedMemoryReader(upstream, max_bytes=parts.config.max_message_bytes)
        self.use_batcher(batcher)

    def use_batcher(self, batcher: Batcher | None) -> None:
        """Score with this batcher from now on."""
        self._batcher = batcher
        self._gatherer = None if batcher is None else Gatherer(batcher, self._upstream, self._tasks)

    # -- admission and finish ------------------------------------------------------------------

    def admit(self) -> None:
        """Take a permit, or refuse at once (Draining, Overloaded); `release` gives it back."""
        if self.draining:
            raise Draining("the server is shutting down")
        if self.in_flight >= self.parts.config.max_in_flight:
            raise Overloaded("too many requests in flight")
        self.in_flight += 1
        if self.in_flight == 1:
            self.idle.clear()

    def release(self) -> None:
        """Give a permit back."""
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    def finish(self, flow: Flow, outcome: str) -> None:
        """Record a request that has been answered, one way or the other."""
        flow.outcome = outcome
        flow.stage_s["total"] = time.monotonic() - flow.arrival_s
        self._finished.append(flow)
        if len(self._finished) >= FLUSH_AT:
            self.flush()
        if flow.samples:
            self._record(flow)

    def flush(self) -> None:
        """Count the requests finished since the last call.

        Many at once: counting touches a lot of code, and one request at a time that code would be
        out of the processor's caches again whenever it is needed.
        """
        for flow in self._finished:
            metrics = self.parts.find(flow.model).metrics
            metrics.request(flow.action.value, flow.outcome)
            for stage, seconds in flow.stage_s.items():
                metrics.stage(stage, seconds)
            metrics.bytes(flow.bytes_in, flow.bytes_out)
            if flow.unscored:
                metrics.unscored(flow.unscored)
        self._finished.clear()
        self._metrics.in_flight.set(self.in_flight)

    def _record(self, flow: Flow) -> None:
        metrics = self.parts.find(flow.model).metrics
        for sample in flow.samples:
            metrics.sample(sample.verdict.value)
            for detector, p in sample.p_values.items():
                metrics.p_value(detector, p)
        if flow.verdict is not Verdict.PASS:
            self._audit.record(flow)

    async def close(self) -> None:
        """Stop work in the background; observed requests not yet scored are dropped."""
        await self._observing.stop()
        await self._tasks.stop()

    # -- the request ---------------------------------------------------------------------------

    async def infer(self, flow: Flow, data: bytes, metadata: Metadata | None) -> Answer:
        """Answer one ModelInfer request; raises ProxyError with what the client is to be told."""
        request, defence = await self.read(flow, data, metadata)
        message = data if request.data is data else bytes(request.data)
        timeout_s = self._timeout(flow)
        if defence.model is None or not defence.wants_scoring:
            flow.unscored = "unlisted_model" if defence.model is None else "no_detectors"
            return await self._pass(flow, defence, message, timeout_s, metadata)
        forward = _Forward(self._upstream, self._tasks, flow, message, metadata, timeout_s)
        try:
            if defence.model.mode == "enforce":
                return await self._enforce(flow, defence, request, forward, metadata)
            return await self._observe(flow, defence, request, forward, metadata)
        except UpstreamError as error:
            defence.metrics.upstream_error(error.code_name)
            raise
        finally:
            forward.abandon()
            _annotate(flow, defence)

    async def _pass(
        self,
        flow: Flow,
        defence: Defence,
        message: bytes,
        timeout_s: float,
        metadata: Metadata | None,
    ) -> Answer:
        """Forward a request that is not to be scored, with as little around it as can be."""
        started = time.monotonic()
        try:
            return await self._upstream.call(
                rpc.INFER.path, message, timeout_s=timeout_s, metadata=metadata
            )
        except UpstreamError as error:
            defence.metrics.upstream_error(error.code_name)
            raise
        finally:
            flow.stage_s["upstream"] = time.monotonic() - started
            _annotate(flow, defence)

    async def inspect(self, flow: Flow, data: bytes, metadata: Metadata | None) -> bytes:
        """One message of a stream: what to send on in its place; raises ProxyError to refuse it.

        A stream's answers cannot be told apart before they come, so there is no answer to look at.
        """
        request, defence = await self.read(flow, data, metadata)
        message = data if request.data is data else bytes(request.data)
        if defence.model is None or not defence.wants_scoring:
            flow.unscored = "unlisted_model" if defence.model is None else "no_detectors"
            return message
        if defence.model.mode == "observe":
            self.watch(flow, defence, request, metadata, None)
            return message
        budget = Budget(defence.model.budget_ms / 1000)
        findings = await self.assess(flow, defence, request, budget, metadata, answer=None)
        return await self._act(flow, defence, request, findings, budget) or message

    async def read(
        self, flow: Flow, data: bytes, metadata: Metadata | None
    ) -> tuple[wire.InferRequest, Defence]:
        """Parse and validate; bring shared memory inline if policy says so."""
        started = time.monotonic()
        flow.bytes_in = len(data)
        request, known = self._reader.read(data)
        flow.model = request.head.model_name
        flow.version = request.head.model_version
        flow.client_id = request.request_id
        defence = self.parts.find(flow.model)
        self._reader.validate(request, known=known, non_finite=defence.non_finite)
        flow.stage_s["read"] = time.monotonic() - started
        if defence.refused:
            raise RpcRefused(f"model {flow.model!r} is not served here")
        if request.uses_shared_memory:
            request = await self._shared(flow, defence, request, metadata)
        return request, defence

    async def _shared(
        self, flow: Flow, defence: Defence, request: wire.InferRequest, metadata: Metadata | None
    ) -> wire.InferRequest:
        mode = self.parts.config.shared_memory
        if mode == "deny":
            raise SharedMemoryRefused("shared memory is not allowed here; send the tensors inline")
        changes = {}
        for tensor in request.tensors:
            place = tensor.shared_memory
            if place is None:
                continue
            if mode == "passthrough":
                defence.metrics.shared_memory_passthrough()
                continue
            changes[tensor.index] = await self.shared_memory.read(
                place.region,
                offset=place.offset,
                byte_size=place.byte_size,
                timeout_s=self._timeout(flow),
                metadata=metadata,
            )
        if not changes:
            return request
        inline = wire.InferRequest.parse(request.replace(changes))
        validate(inline, non_finite=defence.non_finite)
        return inline

    def _timeout(self, flow: Flow) -> float:
        """Seconds the model server may still take."""
        longest = self.parts.config.upstream_timeout_s
        if flow.deadline_s is None:
            return longest
        return max(0.0, flow.deadline_s - time.monotonic())

    # -- enforce ---------------------------------------------------------------------------------

    async def _enforce(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        forward: _Forward,
        metadata: Metadata | None,
    ) -> Answer:
        model = _model(defence)
        in_sequence = is_in_sequence(request, defence)
        if model.dispatch == "speculative" and not in_sequence:
            forward.start()
        budget = Budget(model.budget_ms / 1000)
        findings = await self.assess(
            flow, defence, request, budget, metadata, answer=None if in_sequence else forward.start
        )
        purified = await self._act(flow, defence, request, findings, budget)
        if purified is not None:
            forward.replace(purified, timeout_s=self._timeout(flow))
        return await forward.start()

    async def _act(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        findings: Findings | None,
        budget: Budget,
    ) -> bytes | None:
        """Decide and act: the message to send instead, None to pass as it is, or Blocked."""
        if findings is None:
            return None
        in_sequence = is_in_sequence(request, defence)
        flow.action = policy.decide(findings.samples, _model(defence), in_sequence=in_sequence)
        if flow.action is Action.BLOCK:
            raise Blocked("the request was refused")
        if flow.action is Action.PURIFY:
            return await self._purified(flow, defence, request, findings, budget)
        return None

    async def assess(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        budget: Budget,
        metadata: Metadata | None,
        *,
        answer: Callable[[], Awaitable[Answer]] | None,
    ) -> Findings | None:
        """Verdicts on a request, also noted on its flow; None when it is to pass without one.

        Raises:
            DetectorFailed, Overloaded: no verdict, and `on_failure` is closed.
            InvalidTensor: the tensor is not one the model's configuration allows.
        """
        try:
            findings = await self._gather(flow, defence, request, budget, metadata, answer)
        except (DetectorFailed, Overloaded) as failure:
            self._fail(flow, defence, failure)
            return None
        if findings is not None:
            flow.samples = findings.samples
            if policy.has_failed(findings.samples):
                # If this passes, the verdicts on the other samples still count: one sample that
                # cannot be judged must not carry the rest of its batch through.
                self._fail(flow, defence, DetectorFailed("non_finite"))
        return findings

    def _fail(self, flow: Flow, defence: Defence, failure: DetectorFailed | Overloaded) -> None:
        """No verdict: count it, and let `on_failure` decide whether the request passes."""
        reason = failure.reason if isinstance(failure, DetectorFailed) else "overloaded"
        defence.metrics.detector_failure(reason)
        flow.failure = reason
        if not flow.samples:
            flow.samples = (_NO_VERDICT,)
        if _model(defence).on_failure == "closed":
            raise failure
        defence.metrics.fail_open(reason)

    async def _gather(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        budget: Budget,
        metadata: Metadata | None,
        answer: Callable[[], Awaitable[Answer]] | None,
    ) -> Findings | None:
        spec, scorer = defence.spec, defence.scorer
        if spec is None or scorer is None or self._gatherer is None:
            raise DetectorFailed("not_ready", defence.problem)
        known = (spec.input, *spec.ignored_inputs)
        if any(t.name not in known for t in request.tensors):
            # Another version of the model may have other inputs, and look at these.
            raise DetectorFailed("no_evidence", "an input that the configuration does not know")
        tensor = next((t for t in request.tensors if t.name == spec.input), None)
        if tensor is None:
            # Nothing to look at; a model that needs the tensor will say so itself.
            defence.metrics.unscored("no_tensor")
            return None
        if tensor.shared_memory is not None:
            defence.metrics.unscored("shared_memory")
            return None
        if tensor.datatype != spec.datatype:
            raise InvalidTensor(
                f"input {tensor.name!r} is {tensor.datatype}, the model takes {spec.datatype}"
            )
        image = Image(tensor.index, tensor.payload(), tensor.shape)
        return await self._gatherer.gather(
            flow, scorer, spec, request, image,
            answer=answer, budget=budget, timeout_s=self._timeout(flow), metadata=metadata,
        )  # fmt: skip

    async def _purified(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        findings: Findings,
        budget: Budget,
    ) -> bytes | None:
        """The request with its suspicious samples purified; None when it is to pass as it is."""
        scorer, spec = defence.scorer, defence.spec
        if scorer is None or spec is None or self._batcher is None:
            raise DetectorFailed("not_ready")
        tensor = next(t for t in request.tensors if t.name == spec.input)
        samples = tuple(
            i for i, s in enumerate(findings.samples) if s.verdict is Verdict.SUSPICIOUS
        )
        item = Suspects(findings.glance, tensor.payload(), samples)
        key = ("purify", id(scorer), tuple(findings.glance.x.shape[1:]))
        try:
            with budget.running(), timed(flow, "purify"):
                change: Splice
                change, _ = await self._batcher.submit(
                    key, item, scorer.purify, size=len(samples), budget_s=budget.left_s
                )
        except (DetectorFailed, Overloaded) as failure:
            self._fail(flow, defence, failure)
            flow.action = Action.FLAG
            return None
        return request.replace({tensor.index: change})

    # -- observe -------------------------------------------------------------------------------

    async def _observe(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        forward: _Forward,
        metadata: Metadata | None,
    ) -> Answer:
        """Answer first, score afterwards."""
        answer = await forward.once()
        self.watch(flow, defence, request, metadata, answer)
        return answer

    def watch(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        metadata: Metadata | None,
        answer: Answer | None,
    ) -> None:
        """Score a request beside the traffic; skipped (and counted) when too many are waiting."""
        if len(self._observing) >= OBSERVE_CAPACITY:
            defence.metrics.observe_skipped()
            return
        self._observing.start(self._score_aside(flow, defence, request, metadata, answer))

    async def _score_aside(
        self,
        flow: Flow,
        defence: Defence,
        request: wire.InferRequest,
        metadata: Metadata | None,
        answer: Answer | None,
    ) -> None:
        async def known() -> Answer:
            assert answer is not None  # noqa: S101 (only handed on when there is one)
            return answer

        aside = Flow(
            flow.request_id, flow.arrival_s, None, flow.principal, flow.streamed,
            flow.model, flow.version, flow.client_id, outcome="observed",
        )  # fmt: skip
        # The client's deadline and the budget are for waiting; nobody waits here.
        budget = Budget(self.parts.config.upstream_timeout_s)
        try:
            findings = await self._gather(
                aside, defence, request, budget, metadata, None if answer is None else known
            )
            aside.samples = () if findings is None else findings.samples
            if policy.has_failed(aside.samples):
                raise DetectorFailed("non_finite")
        except (DetectorFailed, Overloaded) as failure:
            aside.failure = failure.reason if isinstance(failure, DetectorFailed) else "overloaded"
            defence.metrics.detector_failure(aside.failure)
            aside.samples = aside.samples or (_NO_VERDICT,)
        except InvalidTensor:
            defence.metrics.unscored("invalid_tensor")
        for stage, seconds in aside.stage_s.items():
            defence.metrics.stage(stage, seconds)
        self._record(aside)


class _Forward:
    """The call to Triton: made at most once per message, cancelled if nobody wants its answer."""

    def __init__(
        self,
        upstream: Upstream,
        tasks: Tasks,
        flow: Flow,
        data: bytes,
        metadata: Metadata | None,
        timeout_s: float,
    ) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._flow = flow
        self._data = data
        self._metadata = metadata
        self._timeout_s = timeout_s
        self._task: asyncio.Task[Answer] | None = None

    def start(self) -> asyncio.Task[Answer]:
        """Send the message if that has not happened; the task holds its answer."""
        if self._task is None:
            self._task = self._tasks.start(self.once(), quiet=True)
        return self._task

    async def once(self) -> Answer:
        """Send the message and return the answer, without the cost of a task of its own."""
        with timed(self._flow, "upstream"):
            return await self._upstream.call(
                rpc.INFER.path, self._data, timeout_s=self._timeout_s, metadata=self._metadata
            )

    def replace(self, data: bytes, *, timeout_s: float) -> None:
        """Send this message instead; an answer to the old one is dropped."""
        self.abandon()
        self._task = None
        self._data = data
        self._timeout_s = timeout_s

    def abandon(self) -> None:
        """Cancel the call if it is still under way."""
        if self._task is not None:
            self._task.cancel()


def is_in_sequence(request: wire.InferRequest, defence: Defence) -> bool:
    """Whether the request belongs to a sequence whose state it changes.

    The client's word for it counts only where the model may keep state at all: a sequence is never
    blocked, and calling anything a sequence would be a way past.
    """
    spec = defence.spec
    if spec is not None and not spec.may_be_stateful:
        return spec.stateful
    if "sequence_id" not in request.head.parameters:
        return False
    value = request.head.parameters["sequence_id"]
    return bool(value.int64_param or value.string_param)


def _annotate(flow: Flow, defence: Defence) -> None:
    if defence.model is not None and defence.model.annotate:
        verdict = "unknown" if flow.verdict is None else flow.verdict.value
        flow.annotations = (
            ("breakwater-verdict", verdict),
            ("breakwater-request-id", flow.request_id),
        )


def _model(defence: Defence) -> Model:
    if defence.model is None:
        raise ProxyError(f"model {defence.name!r} has no defence")
    return defence.model
