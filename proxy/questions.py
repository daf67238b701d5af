"""What the proxy asks the model about a request, when, and what it does without.

Where the client's choice of outputs hides the model's answer (a subset, the classification
extension, shared memory, a stream), the proxy asks the model itself, with a copy of its own.
Answers that do not come leave a case that lacks something: it can show that a sample is
suspicious, and not that it is clean.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from proxy.answers import Output, read_output
from proxy.case import IDENTITY, Buffer, Case, Glance
from proxy.errors import DetectorFailed, Overloaded
from proxy.forecast import Forecast, size_class
from proxy.inspection import Image, Inspection
from proxy.queries import Answers, Queries, Query, patience_s, wait
from proxy.tasks import Tasks
from proxy.upstream import Answer, Upstream

Ask = Callable[[], Awaitable[Answer]]
"""Waits for the model's answer to the client's own request."""


class Questions:
    """Asks about the samples in doubt, within a request's budget."""

    def __init__(self, upstream: Upstream, tasks: Tasks) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._forecast = Forecast()

    async def answers(
        self, inspection: Inspection, image: Image, glance: Glance, answer: Ask | None
    ) -> Case:
        """The model's answer, its own or to a copy of ours, and its answers to the views.

        Only the samples in doubt are asked about, and the views only where they are next.
        """
        queries = self._queries(inspection, image, glance)
        copies = dict(glance.copies)
        if answer is None:
            copies[IDENTITY] = queries.original
        asked = self._start(inspection, queries, copies, glance.peers if glance.queries else {})
        try:
            output = await own_answer(answer, image, glance)
            found = await self._come(inspection, asked)
            own = found.outputs.pop(IDENTITY, None)
            if output is None and own is None and found.failure is None:
                # The answer was not the plain one after all. To do without it would let clients
                # choose which detectors look at them.
                asked = self._start(inspection, queries, {IDENTITY: queries.original}, {})
                again = await self._come(inspection, asked)
                own = again.outputs.get(IDENTITY)
                found = replace(found, failure=again.failure)
        finally:
            if isinstance(asked, Query):
                asked.let_go()
        whole = output if own is None else _among(own, glance)
        if whole is not None:
            _blame(image, found)
        return Case(glance, whole, found.outputs, lacks=_reason(found))

    async def views(self, inspection: Inspection, image: Image, case: Case) -> Case:
        """The same case, with answers to copies of the samples in doubt, and of other models."""
        glance = case.glance
        queries = self._queries(inspection, image, glance)
        asked = self._start(inspection, queries, glance.copies, glance.peers)
        try:
            found = await self._come(inspection, asked)
        finally:
            if isinstance(asked, Query):
                asked.let_go()
        if case.output is not None:
            _blame(image, found)
        return replace(case, views=found.outputs, more=False, lacks=_reason(found) or case.lacks)

    def _start(
        self,
        inspection: Inspection,
        queries: Queries,
        copies: Mapping[str, Buffer],
        peers: Mapping[str, str],
    ) -> Query | Answers:
        """Ask, unless the answers will be too late by all experience.

        Raises:
            DeadlineExceeded: it is the client's deadline they would be too late for.
        """
        if not (copies or peers):
            return Answers({})
        # What is foreseen is the wait beyond the model's answer to the client.
        kind = (inspection.flow.model, size_class(queries.rows), len(copies) + len(peers))
        if self._forecast.expected_s(kind) > patience_s(inspection):
            inspection.defence.metrics.stage_skipped("views")
            cause = inspection.overrun()
            if not isinstance(cause, DetectorFailed):
                raise cause
            return Answers({}, cause)
        return queries.start(kind, copies, peers)

    async def _come(self, inspection: Inspection, asked: Query | Answers) -> Answers:
        if isinstance(asked, Answers):
            return asked
        started = time.monotonic()
        found = await wait(inspection, asked)  # what the client cuts short is no experience
        overran = _reason(found) == "budget"
        self._forecast.observe(asked.kind, time.monotonic() - started, overran=overran)
        return found

    def _queries(self, inspection: Inspection, image: Image, glance: Glance) -> Queries:
        rows = None if len(glance.rows) == len(glance.x) else glance.rows
        return Queries(self._upstream, self._tasks, inspection, image, rows)


async def own_answer(answer: Ask | None, image: Image, glance: Glance) -> Output | None:
    """The class scores in the model's answer to the client, (B, K), where they are there."""
    if answer is None:
        return None
    return read_output((await answer()).data, image.spec, len(glance.x))


def classes_of(output: Output) -> npt.NDArray[np.int64]:
    """The class with the highest score, (B,); -1 for samples that were not asked about."""
    return np.where(np.isnan(output).any(axis=1), -1, output.argmax(axis=1))


def is_partial(output: Output) -> bool:
    """Whether some samples were not asked about: their rows are NaN."""
    return bool(np.isnan(output).all(axis=1).any())


def _blame(image: Image, found: Answers) -> None:
    """Hold missing answers against their detectors, where the model did answer the same request.

    A request that the model refuses as well is the client's doing.
    """
    if found.unanswered:
        image.scorer.unanswered(found.unanswered)


def _reason(answers: Answers) -> str:
    failure = answers.failure
    if isinstance(failure, Overloaded):
        return "overloaded"
    return "" if failure is None else failure.reason


def _among(answers: Output, glance: Glance) -> Output:
    """Answers about the samples in doubt among those of all; NaN for the others."""
    if len(answers) == len(glance.x):
        return answers
    whole = np.full((len(glance.x), answers.shape[1]), np.nan, np.float32)
    whole[list(glance.rows)] = answers
    return whole
