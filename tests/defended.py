"""Defended models for tests: their configurations, and pipelines that show all they do."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from proxy import rpc
from proxy.audit import AuditLog
from proxy.batcher import Batcher
from proxy.config import Config
from proxy.defences import Defences
from proxy.flow import Flow
from proxy.history.history import History
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.pipeline import Parts, Pipeline
from proxy.records.records import Records
from proxy.upstream import Answer, Metadata, Upstream
from tests.images import CLIENT

SQUEEZING = {"name": "feature_squeezing"}
ALL = ({"name": "residual"}, {"name": "margin"}, {"name": "energy"}, SQUEEZING)

MODELS: Mapping[str, Mapping[str, Any]] = {
    "digits_like": {"detectors": ALL},
    "digits_like_probabilities": {
        "output": {"kind": "probabilities"},
        "detectors": ({"name": "energy"}, SQUEEZING),
    },
    "digits_like_nhwc_uint8": {"detectors": ({"name": "residual"}, SQUEEZING)},
    "digits_like_fp16": {"detectors": ({"name": "residual"},)},
    "digits_like_again": {"detectors": ({"name": "residual"}, {"name": "history"})},
    "encoded": {
        "inputs": ({"encoded": True, "size": (32, 32)},),
        "detectors": ({"name": "residual"},),
    },
    "sequence_sum": {"output": {"name": "sum"}, "detectors": ({"name": "residual"},)},
    "repeat": {
        "inputs": ({"name": "image"}, {"name": "count", "inspect": False}),
        "detectors": ({"name": "residual"},),
    },
}
"""What each test model is defended with; the fixture `calibrations` has a folder for each."""

ALL_FOUR = {part["name"] for part in ALL}

PURIFIERS = ({"name": "median", "params": {"size": 3}},)


class RecordingUpstream(Upstream):
    """The connection to the real Triton, with a note of every inference and a gate in its way."""

    def __init__(self, address: str) -> None:
        super().__init__(address, max_message_bytes=1 << 26)
        self.sent: dict[str, list[bytes]] = {"client": [], "own": []}
        """The clients' requests as they were sent on, and the proxy's own queries."""
        self.answered: list[str] = []
        """Kinds of the calls that the server has answered."""
        self.metadata: list[Metadata | None] = []
        self.cancelled: list[str] = []
        self.held: set[str] = set()
        """Kinds of calls that wait before they are made until `release`."""
        self.failing: dict[str, Exception] = {}
        """Kinds of calls that fail in this way, after `release` if they are also held."""
        self.failing_once: dict[str, Exception] = {}
        """Kinds of calls of which the next one fails at once."""
        self.blank: set[str] = set()
        """Kinds of calls that the model answers with an empty message."""
        self._arrived = asyncio.Condition()
        self._released = asyncio.Event()

    async def call(
        self, method: str, data: bytes, *, timeout_s: float | None, metadata: Metadata | None = None
    ) -> Answer:
        if method != rpc.INFER.path:
            return await super().call(method, data, timeout_s=timeout_s, metadata=metadata)
        kind = "client" if pb.ModelInferRequest.FromString(data).id == CLIENT else "own"
        self.sent[kind].append(data)
        self.metadata.append(metadata)
        async with self._arrived:
            self._arrived.notify_all()
        if kind in self.failing_once:
            raise self.failing_once.pop(kind)
        try:
            if kind in self.held:
                await self._released.wait()
            if kind in self.failing:
                raise self.failing[kind]
            answer = await super().call(method, data, timeout_s=timeout_s, metadata=metadata)
            self.answered.append(kind)
            async with self._arrived:
                self._arrived.notify_all()
            return Answer(b"") if kind in self.blank else answer
        except asyncio.CancelledError:
            self.cancelled.append(kind)
            raise

    async def expect(self, kind: str, count: int = 1) -> None:
        """Wait until so many calls of a kind have been asked for."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: len(self.sent[kind]) >= count)

    async def expect_answer(self, kind: str) -> None:
        """Wait until the server has answered a call: to cancel one may crash it (its 7368)."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: kind in self.answered)

    def release(self) -> None:
        """Let the held calls go, and all later ones."""
        self._released.set()


@dataclass
class Defended:
    """A pipeline in front of the real Triton, and all that can be seen of it."""

    pipeline: Pipeline
    upstream: RecordingUpstream
    batcher: Batcher
    defences: Defences
    history: History
    registry: CollectorRegistry
    audit_log: AuditLog
    audit_file: Path
    records: Records
    flows: list[Flow] = field(default_factory=list)
    audit_open: bool = True

    def close_audit(self) -> None:
        """Write what is waiting, once."""
        if self.audit_open:
            self.audit_open = False
            self.audit_log.close()

    async def infer(
        self,
        message: pb.ModelInferRequest | bytes,
        metadata: Metadata | None = None,
        principal: str = "tester",
        timeout_s: float | None = None,
    ) -> Answer:
        """One request from admission to finish, as the service takes it."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        flow = Flow(f"r{len(self.flows)}", time.monotonic(), deadline_s, principal)
        self.flows.append(flow)
        self.pipeline.admit()
        outcome = "cancelled"
        try:
            answer = await self.pipeline.infer(flow, data, metadata)
            outcome = "ok"
            return answer
        except Exception as error:
            outcome = getattr(error, "kind", "bug")
            raise
        finally:
            self.pipeline.release()
            self.pipeline.finish(flow, outcome)

    @property
    def flow(self) -> Flow:
        """The latest request's."""
        return self.flows[-1]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with at least these labels."""
        self.pipeline.flush()
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"breakwater_{name}" and labels.items() <= sample.labels.items()
        )

    def audit(self) -> list[dict[str, Any]]:
        """The audit log so far; closes it."""
        self.close_audit()
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]

    @contextmanager
    def busy_device(self) -> Iterator[None]:
        """Hold the device thread: nothing is scored inside."""
        gate = threading.Event()

        def hold(items: Sequence[None]) -> Sequence[None]:
            assert gate.wait(10)
            return items

        entry = asyncio.get_running_loop().create_task(self.batcher.submit("hold", None, hold))
        try:
            yield
        finally:
            gate.set()
            entry.add_done_callback(lambda task: task.exception())

    async def queued(self, count: int = 1) -> None:
        """Let started requests reach the device's queue."""
        for _ in range(20 * count):
            await asyncio.sleep(0)

    async def observed(self, count: int = 1) -> None:
        """Wait until so many samples have been scored aside."""
        await eventually(lambda: self.metric("samples_total") >= count)


async def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; TimeoutError if it does not in time.

    Waits in between: a loop that spins leaves too little to the threads that are to do the work.
    """
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (nothing tells us)
            await asyncio.sleep(0.005)


def settings_of(
    calibrations: Path, models: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The configuration of models: what `MODELS` says of each, and the fields given here."""
    return {
        name: {
            **{"calibration": calibrations / name, "fpr": 0.05, "mode": "enforce"},
            **{"budget_ms": 10_000, "purifiers": PURIFIERS},
            **MODELS.get(name, {}),
            **fields,
        }
        for name, fields in models.items()
    }


@asynccontextmanager
async def defended(
    triton_address: str,
    calibrations: Path,
    folder: Path,
    models: Mapping[str, Mapping[str, Any]],
    *,
    refresh: bool = True,
    capacity: int = 256,
    **settings: Any,
) -> AsyncIterator[Defended]:
    """A pipeline for models configured as by `settings_of`."""
    config = Config.model_validate(
        {"upstream": triton_address, "models": settings_of(calibrations, models), **settings}
    )
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    upstream = RecordingUpstream(triton_address)
    history = History(config.history, metrics)
    await history.start()
    defences = Defences(config, metrics, history.salts)
    if refresh:
        await defences.refresh(upstream)
    audit_file = folder / "audit.jsonl"
    audit = AuditLog(audit_file, metrics.audit_dropped)
    records = Records(config.records, on_drop=metrics.watch_dropped)
    pipeline = Pipeline(
        Parts(config, defences.find),
        upstream=upstream,
        batcher=None,
        metrics=metrics,
        audit=audit,
        records=records,
    )
    batcher = Batcher(
        max_batch=32,
        window_s=0.0,
        capacity=capacity,
        company=lambda: pipeline.in_flight,
        on_batch=lambda samples, waiting: metrics.batch(samples),
    )
    pipeline.use_batcher(batcher)
    pipeline.use_history(history)
    subject = Defended(
        *(pipeline, upstream, batcher, defences, history, registry, audit, audit_file, records)
    )
    try:
        yield subject
        # Nothing may leak: tasks are forgotten a turn of the loop after they have ended.
        await eventually(
            lambda: (
                not any(
                    (
                        pipeline.in_flight,
                        *map(len, (pipeline._tasks, pipeline._observer, pipeline._shadow)),
                    )
                )
            )
        )
    finally:
        await pipeline.close()
        await records.close()
        await history.close()
        await batcher.close()
        await upstream.close()
        subject.close_audit()


def each(verdicts: Sequence[Any]) -> list[str]:
    """The verdicts of a flow's samples, by name."""
    return [str(sample.verdict) for sample in verdicts]


def p_values(flow: Flow) -> set[str]:
    """The detectors that looked at a flow's samples."""
    (names,) = {frozenset(sample.p_values) for sample in flow.samples}
    return set(names)


async def stream_message(d: Defended, message: pb.ModelInferRequest) -> bytes:
    """One message of a stream; what is sent on in its place."""
    flow = Flow("r", time.monotonic(), None, "tester", streamed=True)
    d.flows.append(flow)
    return await d.pipeline.inspect(flow, message.SerializeToString(), None)


Opener = Callable[..., AbstractAsyncContextManager[Defended]]
"""Opens a pipeline for models by name, with the fields that differ from the fixture's."""
