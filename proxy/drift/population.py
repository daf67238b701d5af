"""One model's traffic as a whole: its latest samples in windows, compared with the calibration.

A request leaves its figures behind with `add`; everything else happens off its path. Not safe for
two threads at once, but for `export`, `restored` and `judged`, which another one than the event
loop's may run, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectors.drift_reference import Reference
from detectors.drift_sketch import Sketch
from detectors.drift_test import LEAST_BLOCKS, Finding, alarm, compare
from proxy.drift.batch import Scored, batch_of
from proxy.drift.gauges import DriftMetrics
from proxy.drift.panes import CountPanes, Panes, TimePanes
from proxy.drift.settings import Drift
from proxy.drift.state import WINDOWS, Look, Response, Seen, State, Window
from proxy.flow import Flow

MOST_WAITING = 4096
"""Samples that wait to be taken in, every two seconds; more are left out, counted: a part tells as
much as all of them, and each costs some 15 us then (`loadtests/NOTES.md`, Drift at run time)."""
CALM_ALPHA = 0.01
"""A look shows nothing at all where there would be no alarm at this level either."""
LARGEST_ALPHA = 0.01
"""However long nothing was looked at."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What the windows are of; with another one they start anew."""

    model: str
    defence: str
    """Digest of the calibration and what it depends on."""
    version: str
    """What the model server serves."""
    rule: str
    """How scores become verdicts, and which of them are made of every sample."""

    def __str__(self) -> str:
        return f"{self.model}:{self.defence}:{self.version}:{self.rule}"


@dataclass(frozen=True, slots=True)
class Export:
    """What one process has seen, for whoever looks at all of them together."""

    subject: str
    since_s: float
    """Unix time at which the windows began."""
    marks: Mapping[Window, int]
    """Window -> how far it has come."""
    sketches: Mapping[Window, Sketch]
    """Window -> its full halves."""

    def to_json(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        sketches = {window: sketch.to_json() for window, sketch in self.sketches.items()}
        return {
            **{"subject": self.subject, "since_s": self.since_s},
            **{"marks": dict(self.marks), "sketches": sketches},
        }


class Population:
    """The traffic of one model.

    Args:
        subject: what it is of.
        settings: how it is watched.
        reference: what benign traffic looks like.
        statistics: names of the input statistics, in the order of `Flow.statistics`.
        metrics: told all there is to publish.
        key: of the blocks, equal in all workers.
        now: Unix time.
    """

    def __init__(
        self,
        subject: Subject,
        settings: Drift,
        reference: Reference,
        *,
        statistics: Sequence[str],
        metrics: DriftMetrics,
        key: bytes,
        now: Callable[[], float],
    ) -> None:
        self.subject = subject
        self.settings = settings
        """Assign anew when the policy changes; `windows` must stay."""
        self.state = State(str(subject))
        """What is held about it; see `adopt`."""
        self.response: Response = "none"
        """What is done about it now."""
        self.counts = {"taken": 0, "attack": 0, "full": 0}
        """Samples taken in, and left out by the reason."""
        self._reference = reference
        self._statistics = tuple(statistics)
        self._metrics = metrics
        self._now = now
        self._since_s = now()
        self._waiting: list[Scored] = []
        self._samples_waiting = 0
        window = settings.windows
        self._by_time = TimePanes(reference, key, seconds=60 * window.minutes, now_s=now())
        by_count = CountPanes(reference, key, count=window.count)
        self._exported: Export | None = None
        self._panes: dict[Window, Panes] = {"count": by_count, "time": self._by_time}
        metrics.begin(subject.model, list(reference.signals))

    # -- on the event loop -------------------------------------------------------------------------

    def add(self, flow: Flow) -> None:
        """Leave a scored request's figures to be taken in, but for what belongs to an attack."""
        count = len(flow.samples)
        if flow.quarantined or flow.chain or any(sample.alarm for sample in flow.samples):
            self._leave_out("attack", count)
        elif self._samples_waiting + count > MOST_WAITING:
            self._leave_out("full", count)
        else:
            self._samples_waiting += count
            facts = (flow.principal, flow.samples, flow.statistics, flow.classes)
            self._waiting.append(Scored(self._now(), *facts))

    def take(self) -> list[Scored]:
        """What waits to be taken in; it is the caller's now."""
        waiting, self._waiting = self._waiting, []
        self.counts["taken"] += self._samples_waiting
        self._samples_waiting = 0
        return waiting

    def adopt(self, state: State, now_s: float) -> None:
        """Act by what was found out, here or for all workers; about another subject it is void."""
        if state.subject == str(self.subject):
            self.state = state
        self.response = self.state.response(self.settings, now_s)
        suspended = self.response != "none"
        self._metrics.publish(self.subject.model, self.state, suspended=suspended)

    def end(self) -> None:
        """Blank what is published: the model is not watched any more."""
        self._metrics.begin(self.subject.model, list(self._reference.signals))

    def withheld(self, action: str) -> None:
        """Count a request that was flagged in place of an action."""
        self._metrics.withheld(self.subject.model, action)

    def _leave_out(self, reason: str, count: int) -> None:
        self.counts[reason] += count
        self._metrics.left_out(self.subject.model, reason, count)

    # -- beside it ---------------------------------------------------------------------------------

    def export(self, waiting: Sequence[Scored], now_s: float) -> Export:
        """Take in what has waited, and show the windows; the very same where no half is full."""
        batch = batch_of(waiting, self._reference.signals, self._statistics)
        for panes in self._panes.values():
            panes.add(batch)
        self._by_time.pass_to(now_s)
        marks = {window: panes.mark for window, panes in self._panes.items()}
        if self._exported is None or self._exported.marks != marks:
            windows = {window: panes.window() for window, panes in self._panes.items()}
            self._exported = Export(str(self.subject), self._since_s, marks, windows)
        return self._exported

    def restored(self, facts: Mapping[str, Any]) -> Export:
        """The export of another worker, from JSON.

        Raises:
            ValueError: it is damaged, or of another calibration.
        """
        try:
            sketches: dict[Window, Sketch] = {
                window: Sketch.from_json(self._reference, facts["sketches"][window])
                for window in WINDOWS
            }
            marks: dict[Window, int] = {window: int(facts["marks"][window]) for window in WINDOWS}
            return Export(str(facts["subject"]), float(facts["since_s"]), marks, sketches)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not what a worker exports: {error!r}") from error

    def judged(self, exports: Sequence[Export], state: State, now_s: float) -> State:
        """What is to be held after a look at all that has come since the last one.

        Args:
            exports: of every worker.
            state: what was held.
        """
        own = [each for each in exports if each.subject == str(self.subject)]
        if state.subject != str(self.subject):
            state = State(str(self.subject))
        for window in WINDOWS:
            marks = tuple(each.marks[window] for each in own)
            if own and marks != state.looks.get(window, Look()).marks:
                whole = Sketch(self._reference)
                for each in own:
                    whole.merge(each.sketches[window])
                since_s = min(each.since_s for each in own)
                state = self._looked(state, window, marks, whole, now_s, since_s)
        return state

    def _looked(
        self,
        state: State,
        window: Window,
        marks: tuple[int, ...],
        sketch: Sketch,
        now_s: float,
        since_s: float,
    ) -> State:
        settings, found = self.settings, compare(self._reference, sketch)
        samples = max((each.effective_samples for each in found), default=0.0)
        look = Look(marks, now_s, samples, tuple(map(_seen, found)), by_stretch=sketch.by_stretch)
        if max((each.blocks for each in found), default=0) < LEAST_BLOCKS:
            return state.noticed(window, look)
        # A share of the chance of a false alarm as large as the share of the days that has passed,
        # half of it for either window: so however often there is a look, alarms are as rare.
        last_s = state.looks.get(window, Look()).time_s or since_s
        days = max(0.0, now_s - last_s) / _DAY_S
        alpha = min(LARGEST_ALPHA, days / settings.false_alarm_days / len(WINDOWS))
        least = settings.least_distance
        return state.tested(
            window,
            look,
            alarm=alpha > 0 and alarm(found, alpha, least).is_drift,
            calm=not alarm(found, CALM_ALPHA, least).is_drift,
            clear_after=settings.clear_after,
        )


def _seen(finding: Finding) -> Seen:
    return Seen(finding.signal, finding.p_value, finding.distance, finding.effective_samples)


def alarming(state: State, least_distance: float) -> list[str]:
    """The signals that show most of a drift, the farthest first, at most three; for people."""
    farthest: dict[str, float] = {}
    for look in state.looks.values():
        if look.raised:
            for each in look.seen:
                farthest[each.signal] = max(farthest.get(each.signal, 0.0), each.distance)
    names = sorted(farthest, key=lambda name: -farthest[name])
    return [name for name in names if farthest[name] >= least_distance][:3]
