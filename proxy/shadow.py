"""The shadow: a second policy scored beside the traffic, which it never touches.

It compares what both would do. Series of queries are left out of that: they are remembered once,
for the policy in force.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from proxy import policy
from proxy.defence import Onlooker
from proxy.device import Device
from proxy.errors import ProxyError
from proxy.evidence import Gatherer
from proxy.flow import Action, Flow, SampleVerdict
from proxy.inspection import Inspection
from proxy.observer import aside, known
from proxy.tasks import Tasks
from proxy.upstream import Answer, Upstream

CAPACITY = 64
"""Most requests compared at a time; more are not, counted."""

Differing = Callable[[Flow, Mapping[int, str]], None]
"""Told a flow, and the shadow's verdict on each of its samples that the policies disagree on."""


class Shadow:
    """Scores requests by a second policy once the first has decided about them.

    Args:
        tasks: those that calls to the model server are among.
        differing: what becomes of disagreements.
    """

    def __init__(
        self, device: Device, upstream: Upstream, tasks: Tasks, differing: Differing
    ) -> None:
        self._gatherer = Gatherer(device, upstream, tasks)  # which has no history
        self._differing = differing
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._tasks)

    def watch(self, inspection: Inspection, answer: Answer | None) -> None:
        """Compare the policies on a request, beside the traffic; at once where there is no shadow.

        Args:
            inspection: with the verdicts and the action of the policy in force.
            answer: what the client was answered; None where it was refused, or is in a stream.
                Where that is not the model's answer to the client's own message, the model is asked
                again if the shadow's detectors look at it.
        """
        onlooker, flow = inspection.defence.shadow, inspection.flow
        if onlooker is None or not flow.samples:
            return
        if flow.action not in (Action.NONE, Action.FLAG):
            answer = None
        elif answer is None and not flow.streamed:
            return  # it failed upstream
        if onlooker.share < 1 and random.random() >= onlooker.share:  # noqa: S311 (no secret)
            return
        if len(self._tasks) >= CAPACITY:
            onlooker.counts.skipped("full")
            return
        if not _may_look(inspection, onlooker):
            onlooker.counts.skipped("no_answer")
            return
        self._tasks.start(self._compare(inspection, onlooker, answer))

    async def close(self) -> None:
        """Drop what has not been compared yet."""
        await self._tasks.stop()

    async def _compare(
        self, inspection: Inspection, onlooker: Onlooker, answer: Answer | None
    ) -> None:
        model = onlooker.defence.model
        assert model is not None  # noqa: S101 (an onlooker is of a configured model)
        looking = replace(aside(inspection), defence=onlooker.defence, model=model)
        try:
            findings = await self._gatherer.gather(
                looking, None if answer is None else known(answer)
            )
        except ProxyError:
            onlooker.counts.failed()
            return
        if findings is None or not findings.samples:
            return
        if policy.failure(findings.samples):
            onlooker.counts.failed()
        self._tell(inspection, onlooker, findings.samples)

    def _tell(
        self, inspection: Inspection, onlooker: Onlooker, seconds: Sequence[SampleVerdict]
    ) -> None:
        flow, second = inspection.flow, onlooker.defence.model
        assert second is not None  # noqa: S101 (see above)
        firsts, in_sequence = flow.samples, inspection.must_go_on
        if len(firsts) != len(seconds):  # one without a verdict stands for all
            firsts = firsts[:1] * len(seconds)
        differing = {}
        for index, (one, other) in enumerate(zip(firsts, seconds, strict=True)):
            onlooker.counts.compared(one.verdict.value, other.verdict.value)
            act, would = (
                policy.decide([replace(each, alarm=False)], model, in_sequence=in_sequence)
                for each, model in ((one, inspection.model), (other, second))
            )
            if one.verdict is not other.verdict or act is not would:
                onlooker.counts.disagreed(act.value, would.value)
                differing[index] = other.verdict.value
        if differing:
            self._differing(flow, differing)


def _may_look(inspection: Inspection, onlooker: Onlooker) -> bool:
    """Whether the model may be asked about a request it has not been sent."""
    scorer = onlooker.defence.scorer
    unseen = inspection.flow.action is Action.BLOCK and inspection.model.dispatch == "sequential"
    return not (unseen and scorer is not None and scorer.needs_output)
