"""Takes in every scored sample: shows the notable ones, keeps a sample of all scores.

Nobody waits for it. A notable request is told at once, the others when requests are counted.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from proxy import config
from proxy.flow import Flow
from proxy.records.kept import Kept, Subject
from proxy.records.recent import Recent
from proxy.records.record import (
    MAX_SAMPLES,
    Label,
    Record,
    is_notable,
    notable_samples,
    record_of,
)
from proxy.records.reservoir import Reservoir
from proxy.records.sketch import KEY_BYTES, Keyed
from proxy.records.snapshot import Snapshot, empty
from proxy.records.thumbnails import Pictures
from proxy.records.watches import Watch, Watches
from proxy.tasks import Tasks

if TYPE_CHECKING:
    from torch import Tensor

_EXPIRE_S = 60.0


class Records:
    """What this process has scored.

    Args:
        settings: how much is kept.
        key: of the hashes; workers whose scores are to be merged share one. Default: random.
        on_drop: told how many records slow watchers have lost.
        now: Unix time.
    """

    def __init__(
        self,
        settings: config.Records,
        *,
        key: bytes | None = None,
        on_drop: Callable[[int], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.takes_pictures = settings.thumbnails
        """Whether notable flows are to bring their pixels."""
        self._settings = settings
        self._keyed = Keyed(key or os.urandom(KEY_BYTES))
        self._now = now
        self._recent = Recent(settings.recent)
        # A shadow may disagree about most of the traffic: that must not push out what is notable.
        self._differing = Recent(settings.recent)
        self._watches = Watches(on_drop)
        self._reservoirs: dict[str, Reservoir] = {}
        self._quiet: list[Flow] = []
        self._pictures = Pictures()
        self._tasks = Tasks()
        self._expired_s = 0.0

    # -- what comes in -----------------------------------------------------------------------------

    def note(self, flow: Flow) -> None:
        """Take in a finished request that was scored; it must not change afterwards."""
        pixels, flow.pixels = flow.pixels, None
        if not is_notable(flow):
            self._quiet.append(flow)
            self._differ(flow, self._now())
            return
        rows = [] if pixels is None else self._pictures.admit(notable_samples(flow))
        if pixels is None or not rows:
            self._show(flow, self._keep(flow), {})
        else:
            self._tasks.start(self._pictured(flow, pixels, rows))

    def flush(self) -> None:
        """Take in the requests that could wait."""
        quiet, self._quiet = self._quiet, []
        everything = self._watches.wants_everything
        for flow in quiet:
            now_s = self._keep(flow)
            if everything:
                rows = range(min(len(flow.samples), MAX_SAMPLES))
                self._watches.tell((record_of(flow, i, now_s) for i in rows), notable=False)

    def add(self, flow: Flow, thumbnails: Mapping[int, str] | None = None) -> None:
        """Record a finished request at once.

        Args:
            thumbnails: by sample, as in `Record.thumbnail`.
        """
        if is_notable(flow):
            self._show(flow, self._keep(flow), thumbnails or {})
        else:
            self._quiet.append(flow)
            self._differ(flow, self._now())
            self.flush()

    def disagree(self, flow: Flow, verdicts: Mapping[int, str]) -> None:
        """Record the samples that a shadow policy judges otherwise.

        Where the request has not finished they are recorded when it has; where it has, whoever
        watches is told of them once more.

        Args:
            verdicts: its own, by sample; one verdict of the flow may stand for several samples.
        """
        rows = [index for index in sorted(verdicts) if index < len(flow.samples)][:MAX_SAMPLES]
        flow.shadow = {index: verdicts[index] for index in rows}
        if not flow.outcome:
            return
        found = self._differ(flow, self._now())
        notable = [record for record in found if self._recent.find(record.id) is not None]
        self._watches.tell(notable, notable=True)
        quiet = [record for record in found if self._recent.find(record.id) is None]
        self._watches.tell(quiet, notable=False)

    def _differ(self, flow: Flow, now_s: float) -> list[Record]:
        """List those samples of a finished request, here and, where they are, among the notable."""
        found = []
        for index, verdict in flow.shadow.items():
            record = self._recent.find(f"{flow.request_id}:{index}")
            if record is None:
                record = record_of(flow, index, now_s)
            else:
                record = replace(record, shadow=verdict)
                self._recent.add(record)
            self._differing.add(record)
            found.append(record)
        return found

    def _keep(self, flow: Flow) -> float:
        """Take the scores in, and tell when that was."""
        now_s = self._now()
        reservoir = self._reservoirs.get(flow.model)
        if reservoir is not None:
            reservoir.add(flow, now_s)
        return now_s

    def _show(self, flow: Flow, now_s: float, thumbnails: Mapping[int, str]) -> None:
        """Make the records of a notable request and tell whoever watches."""
        rows = notable_samples(flow)
        records = [record_of(flow, i, now_s, thumbnail=thumbnails.get(i, "")) for i in rows]
        for record in records:
            self._recent.add(record)
        self._differ(flow, now_s)
        self._watches.tell(records, notable=True)

    async def _pictured(self, flow: Flow, pixels: Tensor, rows: Sequence[int]) -> None:
        self.add(flow, await self._pictures.take(pixels, rows))

    # -- what is shown -----------------------------------------------------------------------------

    def recent(
        self,
        model: str | None = None,
        limit: int = 100,
        before: float | None = None,
        *,
        differing: bool = False,
    ) -> list[Record]:
        """Notable samples, or those that a shadow judges otherwise; see `Recent.newest`."""
        return (self._differing if differing else self._recent).newest(model, limit, before)

    def watch(self, model: str | None = None, *, everything: bool = False) -> Watch:
        """Follow notable samples, or all, from now on.

        Raises:
            TooManyWatches: as many watch as may.
        """
        return self._watches.open(model, everything=everything)

    def label(self, id_: str, label: Label) -> bool:
        """Note what a sample was, or take that back; False where it is not kept any more."""
        kept = [reservoir.label(id_, label) for reservoir in self._reservoirs.values()]
        labelled = [ring.label(id_, label) for ring in (self._recent, self._differing)]
        record = next(filter(None, labelled), None)
        if record is not None and label and not any(kept) and record.model in self._reservoirs:
            self._reservoirs[record.model].keep(record, self._now())
        return record is not None or any(kept)

    def scores(self, model: str) -> Snapshot:
        """The kept scores of a model; an empty snapshot where none are."""
        kept = self.copy(model)
        return empty(model) if kept is None else kept.snapshot()

    def copy(self, model: str) -> Kept | None:
        """The same, to be made into a snapshot on another thread; None where nothing is kept."""
        self.flush()
        reservoir = self._reservoirs.get(model)
        return None if reservoir is None else reservoir.copy(self._now())

    # -- upkeep ------------------------------------------------------------------------------------

    def follow(self, subjects: Iterable[Subject]) -> None:
        """Keep scores of these; what was kept of another defence or model version goes."""
        wanted = {each.model: each for each in subjects} if self._settings.capacity else {}
        self.flush()
        for model in self._reservoirs.keys() - wanted.keys():
            del self._reservoirs[model]
        for model, subject in wanted.items():
            old = self._reservoirs.get(model)
            if old is None or not old.continues(subject):
                self._reservoirs[model] = self._reservoir(subject, old)
        if (now_s := self._now()) >= self._expired_s + _EXPIRE_S:
            self._expired_s = now_s
            for reservoir in self._reservoirs.values():
                reservoir.expire(now_s)

    def _reservoir(self, subject: Subject, old: Reservoir | None) -> Reservoir:
        return Reservoir(
            *(subject, self._settings.capacity, self._keyed),
            now_s=self._now(),
            max_age_s=3600 * self._settings.max_age_hours,
            from_s=-math.inf if old is None else time.monotonic(),
        )

    @property
    def kept(self) -> dict[str, int]:
        """Model -> scores kept."""
        return {model: len(each) for model, each in self._reservoirs.items()}

    @property
    def watching(self) -> int:
        """How many watch."""
        return len(self._watches)

    async def close(self) -> None:
        """End all watches; what waits for a thumbnail is dropped."""
        self._watches.close()
        await self._tasks.stop()
