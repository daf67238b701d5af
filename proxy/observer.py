"""Mode observe: requests scored beside the traffic, so many at a time, and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from proxy import policy
from proxy.assessor import note_failure
from proxy.budget import Budget
from proxy.errors import DetectorFailed, InvalidTensor, Overloaded
from proxy.evidence import Gatherer
from proxy.flow import Flow
from proxy.inspection import Inspection
from proxy.questions import Ask
from proxy.tasks import Tasks
from proxy.upstream import Answer

CAPACITY = 64
"""Most requests scored beside the traffic at a time; more go unscored, counted."""


class Observer:
    """Scores requests that are already on their way.

    Args:
        record: counts and logs the samples of a flow.
        judged: told each request with its verdicts, and the model's answer where there is one.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        record: Callable[[Flow], None],
        judged: Callable[[Inspection, Answer | None], None],
    ) -> None:
        self._gatherer = gatherer
        self._record = record
        self._judged = judged
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._tasks)

    def watch(self, inspection: Inspection, answer: Answer | None) -> None:
        """Score a request beside the traffic; skipped (and counted) when too many are waiting.

        Args:
            answer: the model's, where there is one to look at.
        """
        if len(self._tasks) >= CAPACITY:
            inspection.defence.metrics.observe_skipped()
            return
        beside = aside(inspection)
        if inspection.flow.trace is not None:
            beside.flow.trace = inspection.flow.trace.beside("observe")
        self._tasks.start(self._score(beside, answer))

    async def close(self) -> None:
        """Drop what has not been scored yet."""
        await self._tasks.stop()

    async def _score(self, inspection: Inspection, answer: Answer | None) -> None:
        flow, metrics = inspection.flow, inspection.defence.metrics
        try:
            findings = await self._gatherer.gather(
                inspection, None if answer is None else known(answer)
            )
            flow.samples = () if findings is None else findings.samples
            if reason := policy.failure(flow.samples):
                raise DetectorFailed(reason)
        except (DetectorFailed, Overloaded) as failure:
            note_failure(inspection, failure)
        except InvalidTensor:
            metrics.unscored("invalid_tensor")
        for stage, seconds in flow.stage_s.items():
            metrics.stage(stage, seconds)
        self._record(flow)
        if flow.trace is not None:
            flow.trace.finish(flow)
        self._judged(inspection, answer)


def aside(inspection: Inspection) -> Inspection:
    """The same request with facts of its own: those of the traffic are being told already."""
    flow = inspection.flow
    aside = Flow(
        flow.request_id, flow.arrival_s, None, flow.principal, flow.streamed,
        flow.model, flow.version, flow.client_id, outcome="observed",
        request=flow.request,
    )  # fmt: skip
    # The client's deadline and the budget are for waiting; nobody waits here.
    return replace(inspection, flow=aside, budget=Budget(inspection.longest_s))


def known(answer: Answer) -> Ask:
    """An answer that is there already, for who would wait for one."""

    async def there() -> Answer:
        return answer

    return there
