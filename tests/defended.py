"""Defended models for tests: benign and tampered images, calibrations, pipelines that record."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from proxy import rpc
from proxy.audit import AuditLog
from proxy.batcher import Batcher
from proxy.config import Config
from proxy.defences import Defences
from proxy.flow import Flow
from proxy.metrics import Metrics
from proxy.pb import open_inference_pb2 as pb
from proxy.pipeline import Parts, Pipeline
from proxy.upstream import Answer, Metadata, Upstream
from tests.builders import infer_request

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

PURIFIERS = ({"name": "median", "params": {"size": 3}},)


def benign(count: int, seed: int) -> NDArray[np.float32]:
    """Smooth colour fields with a little noise, (count, 3, 32, 32) in [0, 1], of 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 0.8 + 0.1
    smooth = F.interpolate(coarse, size=(32, 32), mode="bilinear")
    noise = torch.randn(smooth.shape, generator=generator) * (1.5 / 255)
    return ((smooth + noise).clamp(0, 1) * 255).round().div(255).numpy()


def tampered(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The images under a high-frequency pattern that no benign image has."""
    rng = np.random.default_rng(0)
    pattern = np.sign(rng.standard_normal(x.shape[1:])).astype(np.float32)
    return (np.clip(x + 0.1 * pattern, 0, 1) * 255).round().astype(np.float32) / np.float32(255)


def as_file(image: NDArray[np.float32], kind: str = "PNG") -> bytes:
    """(3, H, W) in [0, 1] as an image file."""
    buffer = io.BytesIO()
    pixels = (image * 255).round().astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def as_wire(model: str, x: NDArray[np.float32]) -> NDArray[Any]:
    """Images (B, 3, 32, 32) as the model's own input tensor."""
    if model == "digits_like_nhwc_uint8":
        return np.ascontiguousarray((x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1))
    if model == "digits_like_fp16":
        return x.astype(np.float16)
    if model == "encoded":
        return np.array([[as_file(image)] for image in x], np.object_)
    if model in ("sequence_sum", "repeat"):
        return x[0]
    return x


def request(
    model: str, x: NDArray[np.float32], *, typed: bool = False, **options: Any
) -> pb.ModelInferRequest:
    """A request about images; options as for `infer_request`."""
    extra = {"count": np.array([1], np.int32)} if model == "repeat" else {}
    message = infer_request(
        {"image": as_wire(model, x), **extra}, model=model, request_id=CLIENT, **options
    )
    if typed:
        message.ClearField("raw_input_contents")
        message.inputs[0].contents.fp32_contents.extend(as_wire(model, x).ravel().tolist())
    return message


def images_of(model: str, message: bytes) -> NDArray[np.float32]:
    """The images of a raw request to a model that takes tensors, (B, ...) as on the wire."""
    parsed = pb.ModelInferRequest.FromString(message)
    dtype = {"FP32": "<f4", "FP16": "<f2", "UINT8": "u1"}[parsed.inputs[0].datatype]
    return np.frombuffer(parsed.raw_input_contents[0], dtype).reshape(parsed.inputs[0].shape)


def files_of(message: bytes) -> list[bytes]:
    """The files of a raw request to a model that takes encoded images."""
    raw = pb.ModelInferRequest.FromString(message).raw_input_contents[0]
    files = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        files.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return files


CLIENT = "client"
"""The id of every request the tests send; the proxy's own queries have none."""


class RecordingUpstream(Upstream):
    """The connection to the real Triton, with a note of every inference and a gate in its way."""

    def __init__(self, address: str) -> None:
        super().__init__(address, max_message_bytes=1 << 26)
        self.sent: dict[str, list[bytes]] = {"client": [], "own": []}
        """The clients' requests as they were sent on, and the proxy's own queries."""
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
            return Answer(b"") if kind in self.blank else answer
        except asyncio.CancelledError:
            self.cancelled.append(kind)
            raise

    async def expect(self, kind: str, count: int = 1) -> None:
        """Wait until so many calls of a kind have been asked for."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: len(self.sent[kind]) >= count)

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
    registry: CollectorRegistry
    audit_log: AuditLog
    audit_file: Path
    flows: list[Flow] = field(default_factory=list)
    audit_open: bool = True

    def close_audit(self) -> None:
        """Write what is waiting, once."""
        if self.audit_open:
            self.audit_open = False
            self.audit_log.close()

    async def infer(
        self, message: pb.ModelInferRequest | bytes, metadata: Metadata | None = None
    ) -> Answer:
        """One request from admission to finish, as the service takes it."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        flow = Flow(f"r{len(self.flows)}", 0.0, None, "tester")
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
    """Give way to others until the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (nothing tells us)
            await asyncio.sleep(0)


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
    defences = Defences(config, metrics)
    if refresh:
        await defences.refresh(upstream)
    audit_file = folder / "audit.jsonl"
    audit = AuditLog(audit_file, metrics.audit_dropped)
    pipeline = Pipeline(
        Parts(config, defences.find), upstream=upstream, batcher=None, metrics=metrics, audit=audit
    )
    batcher = Batcher(
        max_batch=32,
        window_s=0.0,
        capacity=capacity,
        company=lambda: pipeline.in_flight,
        on_batch=lambda samples, waiting: metrics.batch(samples),
    )
    pipeline.use_batcher(batcher)
    subject = Defended(pipeline, upstream, batcher, defences, registry, audit, audit_file)
    try:
        yield subject
        # Nothing may leak: tasks are forgotten a turn of the loop after they have ended.
        await eventually(
            lambda: not (pipeline.in_flight or len(pipeline._tasks) or len(pipeline._observing))
        )
    finally:
        await pipeline.close()
        await batcher.close()
        await upstream.close()
        subject.close_audit()


def each(verdicts: Sequence[Any]) -> list[str]:
    """The verdicts of a flow's samples, by name."""
    return [str(sample.verdict) for sample in verdicts]
