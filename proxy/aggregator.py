"""One answer from several purified copies of the suspicious samples.

The copy that was sent in the client's place is one of them; the others are asked about in one
call of the proxy's own, while the model answers. What cannot be aggregated, or not in time, keeps
its plain answer to the purified request, and is counted.
"""

from __future__ import annotations

import numpy as np

from proxy import policy
from proxy.answers import Output, read_output, shows_output, write_output
from proxy.device import Device
from proxy.errors import DetectorFailed, Overloaded
from proxy.evidence import Findings
from proxy.inspection import Inspection
from proxy.queries import Queries, Query, wait
from proxy.questions import Ask
from proxy.tasks import Tasks
from proxy.upstream import Answer, Upstream


class Aggregator:
    """Asks about the copies and writes the outcome into the model's answer."""

    def __init__(self, device: Device, upstream: Upstream, tasks: Tasks) -> None:
        self._device = device
        self._upstream = upstream
        self._tasks = tasks

    async def answer(self, inspection: Inspection, findings: Findings, ask: Ask) -> Answer:
        """The model's answer to the purified request, aggregated where the policy wants it.

        Args:
            ask: sends the purified request when first called.

        Raises:
            ProxyError: the purified request itself failed upstream.
        """
        if inspection.model.aggregate is None:
            return await ask()
        metrics = inspection.defence.metrics
        if inspection.in_sequence or not shows_output(inspection.request, findings.image.spec):
            metrics.aggregation("sequence" if inspection.in_sequence else "hidden")
            return await ask()
        under_way = ask()
        query = None
        try:
            query = await self._query(inspection, findings)
            plain = await under_way
            answer = await self._aggregated(inspection, findings, plain, query)
        except (DetectorFailed, Overloaded) as failure:
            reason = failure.reason if isinstance(failure, DetectorFailed) else "overloaded"
            metrics.aggregation(reason)
            return await ask()
        finally:
            if query is not None:
                query.let_go()
        metrics.aggregation("served")
        return answer

    async def _query(self, inspection: Inspection, findings: Findings) -> Query:
        """Draw the other copies, and ask about them."""
        image = findings.image
        samples = policy.targets(findings.samples, inspection.flow.action)
        drawn = await self._device.redraw(inspection, image, findings.glance, samples)
        copies = {str(number): copy for number, copy in enumerate(drawn)}
        queries = Queries(self._upstream, self._tasks, inspection, image, samples)
        return queries.start("aggregate", copies, {})

    async def _aggregated(
        self, inspection: Inspection, findings: Findings, plain: Answer, query: Query
    ) -> Answer:
        """The answer with the rows of the purified samples written anew."""
        spec = findings.image.spec
        samples = policy.targets(findings.samples, inspection.flow.action)
        own = read_output(plain.data, spec, len(findings.glance.x))
        if own is None:
            raise DetectorFailed("no_evidence", "the model's answer has no class scores")
        asked = await wait(inspection, query)
        if asked.failure is not None:
            raise asked.failure
        others = asked.outputs.values()
        answers = [own[list(samples)], *others]
        if any(each.shape != answers[0].shape for each in others):
            raise DetectorFailed("no_evidence", "the copies' answers have other classes")
        combined: Output = await self._device.combine(inspection, findings.image, np.stack(answers))
        rows = dict(zip(samples, combined, strict=True))
        return plain._replace(data=write_output(plain.data, spec, len(own), rows))
