"""Gathers the evidence on one request: pixels, the model's answer, its answers to copies.

Where the client's choice of outputs hides the model's answer (a subset, the classification
extension, shared memory, a stream), the proxy asks the model itself, with a copy of its own; where
that cannot be (stateful and decoupled models), it falls back to the detectors that need the input
only, which have a threshold of their own. It never passes for want of evidence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from proxy.answers import Output, read_output, shows_output
from proxy.budget import timed
from proxy.case import IDENTITY, Case, Glance
from proxy.device import Device
from proxy.errors import DetectorFailed
from proxy.flow import SampleVerdict
from proxy.inspection import Image, Inspection
from proxy.queries import Queries, wait
from proxy.tasks import Tasks
from proxy.upstream import Answer, Upstream

if TYPE_CHECKING:  # torch is loaded only when some model has detectors
    from proxy.history.history import History, Trace

Ask = Callable[[], Awaitable[Answer]]
"""Waits for the model's answer to the client's own request."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdicts on a request, and the decoded pixels for whoever purifies them."""

    image: Image
    glance: Glance
    samples: tuple[SampleVerdict, ...]
    trace: Trace | None = None
    """What the history knows of the samples, where it remembers them."""


class Gatherer:
    """Asks the device and the model for evidence, within a request's budget."""

    def __init__(self, device: Device, upstream: Upstream, tasks: Tasks) -> None:
        self._device = device
        self._upstream = upstream
        self._tasks = tasks
        self.history: History | None = None
        """Set once some model's queries are to be remembered."""

    async def gather(self, inspection: Inspection, answer: Ask | None) -> Findings | None:
        """Verdicts on all samples of a request; None where there is nothing to look at.

        Args:
            answer: None where there is none to be had (streams). Waiting for it is the model's
                time, not the defence's.

        Raises:
            DetectorFailed: no verdict within the budget, or a detector failed.
            Overloaded: too many wait for the device.
            InvalidTensor: the tensor is not one the model's configuration allows.
            ProxyError: the client's own request failed upstream.
        """
        flow = inspection.flow
        if self.history is not None and inspection.model.remembers:
            flow.quarantined = self.history.is_quarantined(flow.model, flow.principal)
        image = inspection.image()
        if image is None:
            return None
        scorer = image.scorer
        if not (scorer.needs_output and shows_output(inspection.request, image.spec)):
            answer = None
        asks = scorer.needs_output and image.spec.can_query
        copies = asks and bool(scorer.view_keys or scorer.peers)
        glance = await self._device.look(inspection, image, copies=copies)
        if not len(glance.x):
            return Findings(image, glance, ())
        trace = await self._trace(inspection, glance)
        if glance.settled is not None:
            samples = glance.settled
            if trace is not None and trace.is_chained:
                # Judged as a chain as well, for the alarm, without asking the model.
                samples = await self._judged(inspection, image, Case(glance, None, {}), trace)
            return Findings(image, glance, samples, trace)
        if asks:
            case = await self._answers(inspection, image, glance, answer)
            case = replace(case, more=copies and not glance.queries)
        else:
            case = Case(glance, await _output(answer, image, glance), {})
        if trace is not None and case.output is not None and not _is_partial(case.output):
            trace.answered(case.output)
        return Findings(image, glance, await self._judged(inspection, image, case, trace), trace)

    async def _judged(
        self, inspection: Inspection, image: Image, case: Case, trace: Trace | None
    ) -> tuple[SampleVerdict, ...]:
        """Verdicts, with as many questions about the samples in doubt as it takes."""
        if trace is not None:
            case = replace(case, chain=trace.features)
        found = await self._device.judge(inspection, image, case)
        if isinstance(found, Glance):
            views = await self._views(inspection, image, found)
            case = replace(case, glance=found, views=views, more=False)
            found = await self._device.judge(inspection, image, case)
        if isinstance(found, Glance):
            raise DetectorFailed("no_evidence", "samples stay in doubt after all questions")
        alarms = [row for row, sample in enumerate(found) if sample.alarm]
        if trace is not None and alarms:
            self._alarm(inspection, trace, own=any(trace.is_own(row) for row in alarms))
        return found

    async def _trace(self, inspection: Inspection, glance: Glance) -> Trace | None:
        """What the history knows of the request's samples, which it remembers from now on."""
        if glance.prints is None or self.history is None:
            return None
        flow = inspection.flow
        # Not against the budget: a request that takes long to link must not pass for that.
        with timed(flow, "history"):
            trace = await self.history.observe(
                flow.model, flow.principal, glance.prints, inspection.model.query_attacks
            )
        flow.quarantined = self.history.is_quarantined(flow.model, flow.principal)
        return trace

    def _alarm(self, inspection: Inspection, trace: Trace, *, own: bool) -> None:
        """Note an alarm; held against the principal where it is the principal's own doing."""
        flow, policy = inspection.flow, inspection.model.query_attacks
        inspection.defence.metrics.history_alarm()
        flow.chain = trace.longest
        if self.history is not None and own:
            self.history.alarm(flow.model, flow.principal, policy, trace)

    async def _answers(
        self, inspection: Inspection, image: Image, glance: Glance, answer: Ask | None
    ) -> Case:
        """The model's answer, its own or to a copy of ours, and its answers to the views.

        Only the samples in doubt are asked about, and the views only where they are next.
        """
        queries = self._queries(inspection, image, glance)
        original = {IDENTITY: queries.original} if answer is None else {}
        peers = image.scorer.peers if glance.queries else {}
        asked = queries.start({**glance.copies, **original}, peers)
        try:
            output = await _output(answer, image, glance)
            views = await wait(inspection, asked)
            own = views.pop(IDENTITY, None)
            if output is None and own is None:
                # The answer was not the plain one after all. To do without it would let clients
                # choose which detectors look at them.
                asked = queries.start({IDENTITY: queries.original}, {})
                own = (await wait(inspection, asked))[IDENTITY]
        finally:
            if asked is not None:
                asked.cancel()
        return Case(glance, output if own is None else _among(own, glance), views)

    async def _views(
        self, inspection: Inspection, image: Image, glance: Glance
    ) -> dict[str, Output]:
        """Answers to copies of the samples still in doubt, and of other models."""
        queries = self._queries(inspection, image, glance)
        asked = queries.start(glance.copies, image.scorer.peers)
        try:
            return await wait(inspection, asked)
        finally:
            if asked is not None:
                asked.cancel()

    def _queries(self, inspection: Inspection, image: Image, glance: Glance) -> Queries:
        rows = None if len(glance.rows) == len(glance.x) else glance.rows
        return Queries(self._upstream, self._tasks, inspection, image, rows)


def _is_partial(output: Output) -> bool:
    """Whether some samples were not asked about, see `_among`."""
    return bool(np.isnan(output).all(axis=1).any())


def _among(answers: Output, glance: Glance) -> Output:
    """Answers about the samples in doubt among those of all; NaN for the others."""
    if len(answers) == len(glance.x):
        return answers
    whole = np.full((len(glance.x), answers.shape[1]), np.nan, np.float32)
    whole[list(glance.rows)] = answers
    return whole


async def _output(answer: Ask | None, image: Image, glance: Glance) -> Output | None:
    if answer is None:
        return None
    return read_output((await answer()).data, image.spec, len(glance.x))
