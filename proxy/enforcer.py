"""Mode enforce: send the request on when that is wise, reach a verdict, and act on it."""

from __future__ import annotations

import asyncio
import logging

from proxy import decoy
from proxy.aggregator import Aggregator
from proxy.assessor import Assessor
from proxy.defence import Defence
from proxy.errors import UpstreamError
from proxy.forward import Forward
from proxy.inspection import Inspection
from proxy.tasks import Tasks
from proxy.upstream import Answer

log = logging.getLogger(__name__)


class Enforcer:
    """Answers requests as the policy decides about them.

    Args:
        tasks: those that the calls to the model server are among.
    """

    def __init__(self, assessor: Assessor, aggregator: Aggregator, tasks: Tasks) -> None:
        self._assessor = assessor
        self._aggregator = aggregator
        self._tasks = tasks

    async def answer(self, inspection: Inspection, forward: Forward) -> Answer:
        """The answer to what was sent in the end; a call whose answer is void is ended.

        Raises:
            ProxyError: the policy refuses the request, or it failed upstream.
        """
        # A sequence's model may see a request once, and only after it has been decided about.
        may_speculate = inspection.model.dispatch == "speculative" and not inspection.in_sequence
        # With as many void calls running on as may, another one would have to be cancelled.
        if may_speculate and inspection.defence.governor.is_speculative and self._tasks.has_room:
            forward.start()
        try:
            answer = await self._decided(inspection, forward)
        except asyncio.CancelledError:
            forward.leave()  # without a verdict there is nothing to learn about waste
            raise
        except UpstreamError:
            raise
        except BaseException:
            forward.void()
            if may_speculate:
                _govern(inspection.defence, forward)
            raise
        if may_speculate:
            _govern(inspection.defence, forward)
        return answer

    async def _decided(self, inspection: Inspection, forward: Forward) -> Answer:
        """Score, decide and act."""
        ask = None if inspection.in_sequence else forward.as_evidence
        findings = await self._assessor.assess(inspection, ask)
        purified = await self._assessor.act(inspection, findings)
        if findings is None:
            return await forward.start()
        if purified is None:
            answer = await forward.start()
            decoy.note(inspection, findings, answer)
            return answer
        forward.replace(purified)
        answer = await self._aggregator.answer(inspection, findings, forward.start)
        return decoy.held(inspection, findings, answer)


def _govern(defence: Defence, forward: Forward) -> None:
    """Tell the governor how a request ended, and the operator if that changes the dispatch."""
    governor = defence.governor
    if governor.observe(needless=forward.needless):
        defence.metrics.dispatch(speculative=governor.is_speculative)
        log.warning(
            "model %s is now asked %s the verdict: %.1f %% of calls in vain",
            defence.name,
            "before" if governor.is_speculative else "after",
            100 * governor.share,
        )
