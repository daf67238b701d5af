"""The proxy's own questions: what does the model say to copies of this image?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from proxy.answers import Output, copies_request, read_output, rows_of
from proxy.case import Buffer
from proxy.errors import DetectorFailed, Overloaded, ProxyError
from proxy.inspection import Image, Inspection
from proxy.tasks import Tasks
from proxy.upstream import Upstream

Query = asyncio.Task[dict[str, Output]]
"""The answers to come, by the name of the copy."""


class Queries:
    """Asks about one request; its queries may take as long as the model has when this is made.

    That is longer than the budget: the copies are asked about while the model answers the client,
    and only the wait beyond that answer counts as the defence's.

    Args:
        samples: those of the request that the copies hold; all of them by default.
    """

    def __init__(
        self,
        upstream: Upstream,
        tasks: Tasks,
        inspection: Inspection,
        image: Image,
        samples: Sequence[int] | None = None,
    ) -> None:
        self._upstream = upstream
        self._tasks = tasks
        self._inspection = inspection
        self._image = image
        self._samples = samples
        self._timeout_s = inspection.timeout_s

    @property
    def original(self) -> Buffer:
        """The unchanged copy of the samples, as a raw wire tensor."""
        if self._samples is None:
            return self._image.data
        return rows_of(self._inspection.request.tensors[self._image.index], self._samples)

    def start(self, copies: Mapping[str, Buffer], peers: Mapping[str, str]) -> Query | None:
        """Ask the model about the copies, raw wire tensors by name, and others about the original.

        Args:
            peers: name of the answer -> the other model; None is returned where nothing is asked.
        """
        if not (copies or peers):
            return None
        return self._tasks.start(self._ask_all(copies, peers), quiet=True)

    async def _ask_all(
        self, copies: Mapping[str, Buffer], peers: Mapping[str, str]
    ) -> dict[str, Output]:
        """Ask about as many copies in one call as the model's batch limit allows."""
        spec = self._image.spec
        per_call = max(1, spec.batch_limit // max(1, self._rows)) if spec.has_batch_axis else 1
        keys = list(copies)
        groups = [keys[i : i + per_call] for i in range(0, len(keys), per_call)]
        asked = [
            self._tasks.start(self._ask(group, [copies[key] for key in group]), quiet=True)
            for group in groups
        ]
        asked += [
            self._tasks.start(self._ask([key], [self.original], peer), quiet=True)
            for key, peer in peers.items()
        ]
        try:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
            return {key: output for task in done for key, output in task.result().items()}
        finally:
            for task in asked:  # when one fails, nobody waits for the others
                self._tasks.let_go(task)

    async def _ask(
        self, keys: Sequence[str], copies: Sequence[Buffer], peer: str | None = None
    ) -> dict[str, Output]:
        spec, inspection = self._image.spec, self._inspection
        answer = await self._upstream.infer(
            copies_request(
                inspection.request, spec, self._image.index, copies, peer, self._samples
            ),
            timeout_s=self._timeout_s,
            metadata=inspection.metadata,
        )
        output = read_output(answer.data, spec, self._rows * len(copies))
        if output is None:
            raise DetectorFailed("no_evidence", "the model's answer has no class scores")
        return dict(zip(keys, np.split(output, len(copies)), strict=True))

    @property
    def _rows(self) -> int:
        """Samples in one copy."""
        if self._samples is not None:
            return len(self._samples)
        return self._image.shape[0] if self._image.spec.has_batch_axis else 1


async def wait(inspection: Inspection, query: Query | None) -> dict[str, Output]:
    """The answers to a query, within the budget; none where nothing was asked.

    Raises:
        DetectorFailed: they did not come in time, or the model refused.
        Overloaded: the model server is.
    """
    if query is None:
        return {}
    try:
        with inspection.waiting("views"):
            async with asyncio.timeout(inspection.budget.left_s):
                return await query
    except TimeoutError:
        raise DetectorFailed("budget") from None
    except (DetectorFailed, Overloaded):
        raise
    except ProxyError as error:
        raise DetectorFailed("error", f"the model refused a copy: {error}") from error
