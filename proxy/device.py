"""What the event loop asks of the device: look, judge, purify, each within the request's budget."""

from __future__ import annotations

import time
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

from proxy.batcher import Batcher, Item, Result, Run, run_here
from proxy.budget import count_as_queued
from proxy.case import Buffer, Case, Glance, Pixels, Splice, Suspects
from proxy.errors import DetectorFailed
from proxy.flow import SampleVerdict
from proxy.forecast import Forecast, size_class
from proxy.inspection import Image, Inspection


class Device:
    """Puts the work of one request together with others' of the same kind.

    Every method raises Overloaded when too many wait; DetectorFailed past the budget, also where
    it will not suffice by all experience (or without a batcher); DeadlineExceeded where the
    client's deadline does not; and whatever the scorer gave for this request.
    """

    def __init__(self, batcher: Batcher | None) -> None:
        self.batcher = batcher
        """None as long as no model is scored; the process then never loads torch."""
        self._forecast = Forecast()

    async def look(
        self,
        inspection: Inspection,
        image: Image,
        *,
        copies: bool,
        left_out: frozenset[str] = frozenset(),
    ) -> Glance:
        """First pass over the pixels; with the copies the model is to be asked about, if wanted."""
        scorer = image.scorer
        size = scorer.samples(image.shape)
        sample = image.shape[1:] if image.spec.has_batch_axis else image.shape
        key = ("look", id(scorer), sample, copies, left_out)
        pixels = Pixels(image.data, image.shape, copies, left_out)
        return await self._run(inspection, "score", key, pixels, scorer.look, size)

    async def judge(
        self, inspection: Inspection, image: Image, case: Case
    ) -> tuple[SampleVerdict, ...] | Glance:
        """A further pass, with answers: verdicts, or what to ask about the samples in doubt."""
        scorer, glance = image.scorer, case.glance
        if self.batcher is not None and self.batcher.is_at_rest and scorer.is_quick(case):
            return self._judge_here(inspection, image, case)
        classes = None if case.output is None else case.output.shape[1]
        stand, kinds = glance.stand, (case.chain is not None, case.more, glance.queries)
        key = (
            *("judge", id(scorer), tuple(glance.x.shape[1:]), classes, tuple(case.views), kinds),
            None if stand is None else (id(stand.rule), stand.level, bool(stand.rows)),
        )
        size = max(1, len(glance.rows))
        return await self._run(inspection, "score", key, case, scorer.judge, size)

    async def purify(
        self, inspection: Inspection, image: Image, glance: Glance, samples: tuple[int, ...]
    ) -> Splice:
        """The change to the image's wire tensor that purifies these samples."""
        purification = image.scorer.purification
        key = ("purify", id(purification), tuple(glance.x.shape[1:]))
        item, size = Suspects(glance, image.data, samples), len(samples)
        return await self._run(inspection, "purify", key, item, purification.purify, size)

    async def redraw(
        self, inspection: Inspection, image: Image, glance: Glance, samples: tuple[int, ...]
    ) -> tuple[Buffer, ...]:
        """Further purified copies of these samples alone, as raw wire tensors."""
        purification = image.scorer.purification
        key = ("redraw", id(purification), tuple(glance.x.shape[1:]))
        item, size = Suspects(glance, image.data, samples), len(samples)
        return await self._run(inspection, "purify", key, item, purification.redraw, size)

    async def combine(
        self, inspection: Inspection, image: Image, answers: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """One answer from those to several copies, (V, S, K) -> (S, K)."""
        purification = image.scorer.purification
        key = ("combine", id(purification))
        size = answers.shape[1]
        return await self._run(inspection, "purify", key, answers, purification.combine, size)

    def _judge_here(
        self, inspection: Inspection, image: Image, case: Case
    ) -> tuple[SampleVerdict, ...] | Glance:
        """On the event loop, since waking the device thread would take as long as the judgement.

        Where that thread is awake, it judges many at once, which is cheaper.
        """
        if inspection.left_s <= 0:
            raise inspection.overrun()
        with inspection.waiting("score"):
            return run_here(image.scorer.judge_here, case)

    async def _run(
        self,
        inspection: Inspection,
        stage: str,
        key: tuple[Hashable, ...],
        item: Item,
        run: Run[Item, Result],
        size: int,
    ) -> Result:
        if self.batcher is None:
            raise DetectorFailed("not_ready", "there is no device to score on")
        kind = (inspection.flow.model, key[0], size_class(size))
        left_s = inspection.left_s
        if self._forecast.expected_s(kind) > left_s:
            inspection.defence.metrics.stage_skipped(stage)
            raise inspection.overrun()
        started = time.monotonic()
        try:
            with inspection.waiting(stage):
                result, queued_s = await self.batcher.submit(
                    key, item, run, size=size, budget_s=left_s
                )
                if stage == "score":  # purifying is rare, and its time is told as a whole
                    count_as_queued(inspection.flow, queued_s)
        except DetectorFailed as failure:
            if failure.reason != "budget":
                raise
            cause = inspection.overrun()
            if isinstance(cause, DetectorFailed):  # what the client cuts short is no experience
                self._forecast.observe(kind, time.monotonic() - started, overran=True)
            raise cause from None
        self._forecast.observe(kind, time.monotonic() - started)
        return result
