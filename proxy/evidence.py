"""Gathers the evidence on one request: pixels, the model's answer, its answers to copies.

Where the client's choice of outputs hides the model's answer (a subset, the classification
extension, shared memory, a stream), the proxy asks the model itself, with a copy of its own; where
that cannot be (stateful and decoupled models), it falls back to the detectors that need the input
only, which have a threshold of their own. It never passes for want of evidence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from proxy import rpc, wire
from proxy.adapt import ModelSpec
from proxy.batcher import Batcher
from proxy.case import IDENTITY, Buffer, Case, Glance, Pixels
from proxy.errors import DetectorFailed, InvalidRequest, Overloaded, ProxyError
from proxy.flow import Flow, SampleVerdict
from proxy.tasks import Tasks
from proxy.upstream import Answer, Metadata, Upstream

if TYPE_CHECKING:
    from proxy.scoring import Scorer

Output = npt.NDArray[np.float32]
_Query = asyncio.Task[dict[str, Output]]

_SCORE_TYPES = ("FP32", "FP16", "BF16", "FP64")
_RESERVED = ("sequence_id", "sequence_start", "sequence_end", "priority", "timeout")


class Budget:
    """How long a request may still wait for its defence; only time inside `running` counts."""

    def __init__(self, total_s: float) -> None:
        self._left_s = total_s
        self._since: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds left; 0 when spent."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return max(0.0, self._left_s - running)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time spent inside."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._left_s = self.left_s
            self._since = None


@dataclass(frozen=True, slots=True)
class Image:
    """The inspected tensor of a request."""

    index: int
    """Its place among the request's inputs."""
    data: Buffer
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdicts on a request, and the decoded pixels for whoever purifies them."""

    samples: tuple[SampleVerdict, ...]
    glance: Glance


class Gatherer:
    """Asks the device and the model for evidence, within a budget."""

    def __init__(self, batcher: Batcher, upstream: Upstream, tasks: Tasks) -> None:
        self._batcher = batcher
        self._upstream = upstream
        self._tasks = tasks

    async def gather(
        self,
        flow: Flow,
        scorer: Scorer,
        spec: ModelSpec,
        request: wire.InferRequest,
        image: Image,
        *,
        answer: Callable[[], Awaitable[Answer]] | None,
        budget: Budget,
        timeout_s: float,
        metadata: Metadata | None,
    ) -> Findings:
        """Verdicts on all samples of a request.

        Args:
            answer: waits for the model's answer to the client's own request; None where there is
                none to be had (streams).
            budget: time the defence may take; waiting for `answer` is not counted.
            timeout_s: longest one of the proxy's own queries may take. Longer than the budget:
                the copies are asked about while the model answers the client, and only the wait
                beyond that answer counts as the defence's.
            metadata: sent along with the proxy's own queries.

        Raises:
            DetectorFailed: no verdict within the budget, or a detector failed.
            InvalidTensor: the tensor is not one the model's configuration allows.
            ProxyError: the client's own request failed upstream.
        """
        if not (scorer.needs_output and shows_output(request, spec)):
            answer = None
        asks = scorer.needs_output and spec.can_query
        copies = asks and bool(scorer.view_keys)
        glance = await self._look(flow, scorer, spec, image, copies=copies, budget=budget)
        if not len(glance.x):
            return Findings((), glance)

        def query(wanted: Mapping[str, Buffer]) -> _Query | None:
            if not wanted:
                return None
            return self._tasks.start(
                self._query(spec, request, image, wanted, timeout_s, metadata), quiet=True
            )

        original = {IDENTITY: image.data} if asks else {}
        case = await self._answers(flow, spec, glance, original, answer, query, budget)
        return Findings(await self._judge(flow, scorer, case, budget), glance)

    async def _answers(
        self,
        flow: Flow,
        spec: ModelSpec,
        glance: Glance,
        original: Mapping[str, Buffer],
        answer: Callable[[], Awaitable[Answer]] | None,
        query: Callable[[Mapping[str, Buffer]], _Query | None],
        budget: Budget,
    ) -> Case:
        """The model's answer, its own or to a copy of ours, and its answers to the views."""
        asked = query(glance.copies if answer is not None else {**glance.copies, **original})
        try:
            output = None
            if answer is not None:
                output = read_output((await answer()).data, spec, len(glance.x))
            views = await self._views(flow, asked, budget)
            output = views.pop(IDENTITY, output)
            if output is None and original:
                # The answer was not the plain one after all. To do without it would let clients
                # choose which detectors look at them.
                asked = query(original)
                output = (await self._views(flow, asked, budget))[IDENTITY]
        finally:
            if asked is not None:
                asked.cancel()
        return Case(glance, output, views)

    async def _look(
        self,
        flow: Flow,
        scorer: Scorer,
        spec: ModelSpec,
        image: Image,
        *,
        copies: bool,
        budget: Budget,
    ) -> Glance:
        pixels = Pixels(image.data, image.shape, copies)
        size = scorer.samples(image.shape)
        sample = image.shape[1:] if spec.has_batch_axis else image.shape
        key = ("look", id(scorer), sample, copies)
        with budget.running(), timed(flow, "score"):
            glance, queued_s = await self._batcher.submit(
                key, pixels, scorer.look, size=size, budget_s=budget.left_s
            )
            _count_as_queued(flow, queued_s)
        return glance

    async def _judge(
        self, flow: Flow, scorer: Scorer, case: Case, budget: Budget
    ) -> tuple[SampleVerdict, ...]:
        key = (
            "judge",
            id(scorer),
            tuple(case.glance.x.shape[1:]),
            None if case.output is None else case.output.shape[1],
            tuple(case.views),
        )
        with budget.running(), timed(flow, "score"):
            samples, queued_s = await self._batcher.submit(
                key, case, scorer.judge, size=len(case.glance.x), budget_s=budget.left_s
            )
            _count_as_queued(flow, queued_s)
        return samples

    async def _views(self, flow: Flow, query: _Query | None, budget: Budget) -> dict[str, Output]:
        if query is None:
            return {}
        try:
            with budget.running(), timed(flow, "views"):
                async with asyncio.timeout(budget.left_s):
                    return await query
        except TimeoutError:
            raise DetectorFailed("budget") from None
        except DetectorFailed:
            raise
        except Overloaded:
            raise
        except ProxyError as error:
            raise DetectorFailed("error", f"the model refused a copy: {error}") from error

    async def _query(
        self,
        spec: ModelSpec,
        request: wire.InferRequest,
        image: Image,
        copies: Mapping[str, Buffer],
        timeout_s: float,
        metadata: Metadata | None,
    ) -> dict[str, Output]:
        """Ask the model about the copies, as many in one call as its batch limit allows."""
        rows = image.shape[0] if spec.has_batch_axis else 1
        per_call = max(1, spec.batch_limit // max(1, rows)) if spec.has_batch_axis else 1
        keys = list(copies)
        groups = [keys[i : i + per_call] for i in range(0, len(keys), per_call)]

        async def ask(group: Sequence[str]) -> dict[str, Output]:
            data = _copies_request(spec, request, image, [copies[key] for key in group])
            answer = await self._upstream.call(
                rpc.INFER.path, data, timeout_s=timeout_s, metadata=metadata
            )
            output = read_output(answer.data, spec, rows * len(group))
            if output is None:
                raise DetectorFailed("no_evidence", "the model's answer has no class scores")
            return dict(zip(group, np.split(output, len(group)), strict=True))

        asked = [self._tasks.start(ask(group), quiet=True) for group in groups]
        try:
            answers = await asyncio.gather(*asked)
        finally:
            for task in asked:  # when one fails, nobody waits for the others
                task.cancel()
        return {key: output for answer in answers for key, output in answer.items()}


def shows_output(request: wire.InferRequest, spec: ModelSpec) -> bool:
    """Whether the answer to this request will hold the model's plain class scores."""
    if spec.output is None:
        return False
    requested = request.head.outputs
    if not requested:
        return True
    hidden = ("classification", "shared_memory_region")
    # An output may be asked for twice, and the last wish counts: all of them must be plain.
    plain = [
        not any(key in output.parameters for key in hidden)
        for output in requested
        if output.name == spec.output
    ]
    return bool(plain) and all(plain)


def read_output(data: bytes, spec: ModelSpec, samples: int) -> Output | None:
    """The model's class scores, (samples, K) float32, K >= 2; None where the answer has none.

    Logits as they are; probabilities as their logarithms.
    """
    try:
        response = wire.InferResponse.parse(data)
        for tensor in response.tensors:
            if tensor.name == spec.output and tensor.datatype in _SCORE_TYPES:
                rows = wire.as_numpy(tensor).astype(np.float32, copy=False).reshape(samples, -1)
                # More axes than classes (a feature map, a segmentation) are no class scores.
                axes = [d for d in tensor.shape[1 if spec.has_batch_axis else 0 :] if d != 1]
                if rows.shape[1] < 2 or len(axes) != 1:
                    return None
                return _log(rows) if spec.output_kind == "probabilities" else rows
    except (InvalidRequest, ValueError):
        # Triton's answer is not what its own description says: no evidence in it.
        return None
    return None


def _log(probabilities: Output) -> Output:
    # The smallest float32 above 0 keeps the logarithm finite for a model that rounds to zero.
    logs: Output = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logs


def _copies_request(
    spec: ModelSpec, request: wire.InferRequest, image: Image, copies: Sequence[Buffer]
) -> bytes:
    """A request for the plain class scores of the copies, in one batch."""
    count = len(copies)
    tensors = []
    for tensor in request.tensors:
        shape = tensor.shape
        if spec.has_batch_axis and shape:
            shape = (shape[0] * count, *shape[1:])
        if tensor.index == image.index:
            data = b"".join(copies)
        else:
            data = bytes(tensor.payload()) * (count if spec.has_batch_axis else 1)
        tensors.append((tensor.name, tensor.datatype, shape, data))
    parameters = {
        key: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for key, value in request.head.parameters.items()
        if key not in _RESERVED and not key.startswith("triton_")
    }
    return wire.build_infer_request(
        request.head.model_name,
        request.head.model_version,
        tensors,
        [spec.output or ""],
        parameters=parameters,
    )


@contextmanager
def timed(flow: Flow, stage: str) -> Iterator[None]:
    """Add the time spent inside to one of the flow's stages."""
    started = time.monotonic()
    try:
        yield
    finally:
        _add(flow, stage, time.monotonic() - started)


def _count_as_queued(flow: Flow, seconds: float) -> None:
    """Of the time measured as `score`, this much was spent waiting for the device."""
    _add(flow, "queue", seconds)
    _add(flow, "score", -seconds)


def _add(flow: Flow, stage: str, seconds: float) -> None:
    flow.stage_s[stage] = flow.stage_s.get(stage, 0.0) + seconds
