"""Gathers the evidence on one request: pixels, the model's answer, its answers to copies.

Where the model cannot be asked (stateful and decoupled ones), it falls back to the detectors that
need the input only, which have a threshold of their own. What should be there and is not, since it
would take too long or a detector is broken, is done without as well: the rest can still show that a
sample is suspicious. It never passes for want of evidence.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from proxy.answers import shows_output
from proxy.breaker import Admission
from proxy.budget import timed
from proxy.case import Case, Glance
from proxy.device import Device
from proxy.errors import DetectorFailed
from proxy.flow import SampleVerdict, Verdict
from proxy.inspection import Image, Inspection
from proxy.questions import Ask, Questions, classes_of, is_partial, own_answer
from proxy.tasks import Tasks
from proxy.upstream import Upstream

if TYPE_CHECKING:  # torch is loaded only when some model has detectors
    from proxy.history.history import History, Trace
    from proxy.scoring import Scorer


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
        self._tasks = tasks
        self._questions = Questions(upstream, tasks)
        self._preparing: set[tuple[int, frozenset[str]]] = set()
        self.keeps_pixels = False
        """Whether flows are to hold their images, for thumbnails."""
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
        circuits = image.scorer.circuits
        admission = circuits.admit()
        try:
            left_out = self._left_out(image.scorer, admission)
            findings = await self._found(inspection, image, answer, left_out)
        finally:
            circuits.release(admission)
        flow.statistics = findings.glance.statistics
        if self.keeps_pixels and image.spec.kind == "image":
            flow.pixels = findings.glance.x
        if left_out:
            samples = _unproven(findings.samples, "circuit_open")
            return replace(findings, samples=samples)
        return findings

    async def _found(
        self, inspection: Inspection, image: Image, answer: Ask | None, left_out: frozenset[str]
    ) -> Findings:
        """Verdicts by the detectors that are not left out."""
        scorer = image.scorer
        if not (scorer.needs_output and shows_output(inspection.request, image.spec)):
            answer = None
        asks = scorer.needs_output and image.spec.can_query
        copies = asks and scorer.asks_queries
        glance = await self._device.look(inspection, image, copies=copies, left_out=left_out)
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
            case = await self._questions.answers(inspection, image, glance, answer)
            case = replace(case, more=copies and not glance.queries and not case.lacks)
        else:
            case = Case(glance, await own_answer(answer, image, glance), {})
        if case.output is not None:
            inspection.flow.classes = classes_of(case.output)
            if trace is not None and not is_partial(case.output):
                trace.answered(case.output)
        samples = await self._judged(inspection, image, case, trace)
        return Findings(image, glance, samples, trace)

    def _left_out(self, scorer: Scorer, admission: Admission) -> frozenset[str]:
        """The detectors to do without; the rules for the others are made when first needed.

        Raises:
            DetectorFailed: they are being made now.
        """
        names = admission.left_out
        if not names or scorer.can_do_without(names):
            return names
        wanted = (id(scorer), names)
        if wanted not in self._preparing:
            self._preparing.add(wanted)
            task = self._tasks.start(asyncio.to_thread(scorer.prepare, names))
            task.add_done_callback(lambda _: self._preparing.discard(wanted))
        raise DetectorFailed("circuit_open", f"{', '.join(sorted(names))} left out")

    async def _judged(
        self, inspection: Inspection, image: Image, case: Case, trace: Trace | None
    ) -> tuple[SampleVerdict, ...]:
        """Verdicts, with as many questions about the samples in doubt as it takes."""
        if trace is not None:
            case = replace(case, chain=trace.features)
        found = await self._device.judge(inspection, image, case)
        if isinstance(found, Glance):
            case = await self._questions.views(inspection, image, replace(case, glance=found))
            found = await self._device.judge(inspection, image, case)
        if isinstance(found, Glance):
            raise DetectorFailed("no_evidence", "samples stay in doubt after all questions")
        alarms = [row for row, sample in enumerate(found) if sample.alarm]
        if trace is not None and alarms:
            self._alarm(inspection, trace, own=any(trace.is_own(row) for row in alarms))
        return _unproven(found, case.lacks)

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


def _unproven(samples: tuple[SampleVerdict, ...], lacks: str) -> tuple[SampleVerdict, ...]:
    """Verdicts reached without some of the evidence: none of them says that a sample is clean.

    Also not of samples that had been settled: what is left has judged them anew.

    Args:
        lacks: why; empty where nothing is missing.
    """
    if not lacks:
        return samples
    return tuple(
        replace(each, verdict=Verdict.FAILED, reason=lacks)
        if each.verdict is Verdict.PASS
        else each
        for each in samples
    )
