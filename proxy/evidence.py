"""Gathers the evidence on one request: pixels, the model's answer, its answers to copies.

Where the client's choice of outputs hides the model's answer (a subset, the classification
extension, shared memory, a stream), the proxy asks the model itself, with a copy of its own; where
that cannot be (stateful and decoupled models), it falls back to the detectors that need the input
only, which have a threshold of their own. It never passes for want of evidence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy.answers import Output, read_output, shows_output
from proxy.case import IDENTITY, Case, Glance
from proxy.device import Device
from proxy.flow import SampleVerdict
from proxy.inspection import Image, Inspection
from proxy.queries import Queries, wait
from proxy.tasks import Tasks
from proxy.upstream import Answer, Upstream

Ask = Callable[[], Awaitable[Answer]]
"""Waits for the model's answer to the client's own request."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdicts on a request, and the decoded pixels for whoever purifies them."""

    image: Image
    glance: Glance
    samples: tuple[SampleVerdict, ...]


class Gatherer:
    """Asks the device and the model for evidence, within a request's budget."""

    def __init__(self, device: Device, upstream: Upstream, tasks: Tasks) -> None:
        self._device = device
        self._upstream = upstream
        self._tasks = tasks

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
        image = inspection.image()
        if image is None:
            return None
        scorer = image.scorer
        if not (scorer.needs_output and shows_output(inspection.request, image.spec)):
            answer = None
        asks = scorer.needs_output and image.spec.can_query
        queries = Queries(self._upstream, self._tasks, inspection, image) if asks else None
        copies = asks and bool(scorer.view_keys or scorer.peers)
        glance = await self._device.look(inspection, image, copies=copies)
        if not len(glance.x):
            return Findings(image, glance, ())
        if glance.settled is not None:
            return Findings(image, glance, glance.settled)
        if queries is None:
            case = Case(glance, await _output(answer, image, glance), {})
        else:
            case = await self._answers(inspection, image, glance, queries, answer)
        samples = await self._device.judge(inspection, image, case)
        return Findings(image, glance, samples)

    async def _answers(
        self,
        inspection: Inspection,
        image: Image,
        glance: Glance,
        queries: Queries,
        answer: Ask | None,
    ) -> Case:
        """The model's answer, its own or to a copy of ours, and its answers to the views."""
        original = {IDENTITY: image.data}
        asked = queries.start(
            glance.copies if answer is not None else {**glance.copies, **original},
            image.scorer.peers,
        )
        try:
            output = await _output(answer, image, glance)
            views = await wait(inspection, asked)
            output = views.pop(IDENTITY, output)
            if output is None:
                # The answer was not the plain one after all. To do without it would let clients
                # choose which detectors look at them.
                asked = queries.start(original, {})
                output = (await wait(inspection, asked))[IDENTITY]
        finally:
            if asked is not None:
                asked.cancel()
        return Case(glance, output, views)


async def _output(answer: Ask | None, image: Image, glance: Glance) -> Output | None:
    if answer is None:
        return None
    return read_output((await answer()).data, image.spec, len(glance.x))
