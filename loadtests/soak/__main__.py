"""Checked traffic for half an hour while everything around the proxy breaks.

Real Triton, real Redis, `breakwater serve` enforcing with detectors of every tier: one model's
tampered images are purified, another's refused. Clients send at 70 % of the measured knee; the
model's answer names the very bytes it saw, so that a lost or swapped answer is seen. Every so often
Triton is killed or restarted, Redis is killed or frozen, clients cancel or run out of time, bad
input comes, the configuration is reloaded. Only Triton's absence excuses errors, for at most 15
seconds each time. Ctrl-C reports what there is by then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.harness import Report, options, warn_if_busy
from loadtests.soak.faults import Faults
from loadtests.soak.picture import draw
from loadtests.soak.stage import Stage
from loadtests.soak.subjects import subjects
from loadtests.soak.tally import LONGEST_S, MISSING, OTHER_VERDICT, RIGHT, WRONG, Interval, Tally
from loadtests.soak.traffic import PURIFYING, Traffic
from tuning.knee import QUICK, measure_capacity
from tuning.load import Client

SHARE_OF_KNEE = 0.7
WARM = 1 / 6
"""Share of the run after which memory is not to grow any more."""
QUICK_MINUTES = 2.5


@dataclass
class Soak:
    """One run, as far as it came."""

    minutes: float
    tally: Tally = field(default_factory=Tally)
    timeline: list[Interval] = field(default_factory=list)
    injected: list[tuple[str, float]] = field(default_factory=list)
    started_s: float = 0.0
    rate_per_s: float = 0.0
    knee_per_s: float | None = None
    internal_errors: int = 0

    async def run(self, stage: Stage, rate: float | None) -> None:
        """Find the rate, learn the right answers, then send, break and check."""
        traffic = Traffic(stage.address, subjects(), self.tally)
        try:
            await traffic.learn()
            self.rate_per_s = rate or await self._rate(stage)
            faults = Faults(stage, traffic, self.tally)
            self.injected = faults.injected
            self.started_s = time.monotonic()
            self.tally.begin()
            until_s = self.started_s + 60 * self.minutes
            every_s = min(40.0, 60 * self.minutes / 14)
            async with asyncio.TaskGroup() as group:
                others = [
                    group.create_task(faults.watch()),
                    group.create_task(self._sample(stage)),
                ]
                injecting = group.create_task(faults.run(every_s, until_s))
                await traffic.run(self.rate_per_s, until_s)
                await injecting
                for task in others:
                    task.cancel()
        finally:
            self.internal_errors = stage.internal_errors()
            await traffic.close()

    async def _rate(self, stage: Stage) -> float:
        """70 % of the knee; a fifth of one client's own rate where the machine shows no knee."""
        sent = [s.message(PURIFYING, "") for s in subjects() if not s.is_tampered]
        async with Client(stage.address, sent) as client:
            capacity = await measure_capacity(client, QUICK)
        self.knee_per_s = capacity.knee.throughput_per_s
        return SHARE_OF_KNEE * self.knee_per_s or 0.2 * 1000 / capacity.idle_p50_ms

    async def _sample(self, stage: Stage) -> None:
        every_s = 10.0 if self.minutes > 5 else 4.0
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("", total=60 * self.minutes)
            while True:
                await asyncio.sleep(every_s)
                resident = await asyncio.to_thread(stage.resident_mib)
                self.timeline.append(self.tally.interval(self.started_s, resident))
                told = (
                    f"{self.tally.count(RIGHT):,} right, {self.tally.count(WRONG)} wrong, "
                    f"{self.tally.errors_outside} errors unexcused, {len(self.injected)} faults"
                )
                progress.update(task, description=told, completed=time.monotonic() - self.started_s)

    # -- the report ----------------------------------------------------------------------------

    def report(self) -> Report:
        """What was counted, and the figures with a goal."""
        report, tally = Report("Soak"), self.tally
        report.add(
            minutes=round((time.monotonic() - self.started_s) / 60, 1),
            rate_per_s=round(self.rate_per_s, 1),
            knee_per_s=None if self.knee_per_s is None else round(self.knee_per_s, 1),
            sent=tally.sent,
            not_sent_for_want_of_answers=tally.unsent,
            under_way_at_the_end=tally.sent - tally.inside.total() - tally.outside.total(),
        )
        for outcome in sorted({*tally.inside, *tally.outside}):
            report.add(
                outcome=outcome, inside=tally.inside[outcome], outside=tally.outside[outcome]
            )
        for (kind, outcome), count in sorted(tally.bursts.items()):
            report.add(fault_by_clients=kind, answered=outcome, requests=count)
        for window in tally.windows:
            report.add(
                window=window.fault,
                at_s=round(window.start_s - self.started_s, 1),
                length_s=round(window.length_s, 1),
                recovered=window.recovered,
            )
        self._goals(report)
        return report

    def _goals(self, report: Report) -> None:
        tally = self.tally
        unexpected = sum(n for (_, told), n in tally.bursts.items() if told != "as expected")
        lost = tally.count(WRONG) + tally.count(MISSING)
        report.figure("lost or swapped answers", lost, "<= 0")
        report.figure("errors outside the fault windows", tally.errors_outside, "<= 0")
        report.figure("unexpected answers to faulty clients", unexpected, "<= 0")
        report.figure("internal errors in the log", self.internal_errors, "<= 0")
        report.figure("longest fault window, s", self._longest_s(), f"<= {LONGEST_S}")
        share = tally.untouched / max(tally.tampered, 1)
        report.figure("tampered images served untouched, share", share, "<= 0.01")
        inside = tally.untouched_inside
        report.add(figure="tampered images served untouched in fault windows", value=inside)
        report.figure("requests of another verdict than at first", self._others(), "<= 0.01")
        warm = [i for i in self.timeline if i.at_s >= 60 * self.minutes * WARM]
        if len(warm) >= 6:
            mib = [i.resident_mib for i in warm]
            slope, _ = np.polyfit([i.at_s / 3600 for i in warm], mib, 1)
            growth = float(np.median(mib[-3:]) / np.median(mib[:3]))
            report.figure("resident size at the end / after warm-up", growth, "<= 1.10")
            report.add(figure="growth of the resident size, MiB/h", value=round(float(slope), 1))

    def _longest_s(self) -> float:
        """Of windows; one that was not recovered from is longer than any may be."""
        return max(
            (w.length_s if w.recovered else 2 * LONGEST_S for w in self.tally.windows), default=0.0
        )

    def _others(self) -> float:
        outside = self.tally.outside
        return outside[OTHER_VERDICT] / max(outside.total(), 1)


def _options() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, help="default 30, with --quick 2.5")
    parser.add_argument("--rate", type=float, help="requests a second (default: 70 %% of the knee)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--shared-memory", action="store_true", help="tensors reach Triton through shared memory"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the timeline")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep logs and files here")
    chosen = parser.parse_args()
    if chosen.minutes is None:
        chosen.minutes = QUICK_MINUTES if chosen.quick else 30.0
    return chosen


def _finish(soak: Soak, chosen: argparse.Namespace) -> int:
    report = soak.report()
    for example in soak.tally.examples:
        print(f"not excused: {example}", file=sys.stderr)
    if chosen.picture is not None and soak.timeline:
        draw(chosen.picture, soak.timeline, soak.tally.windows, soak.injected, soak.started_s)
    report.print(Console(width=160) if not sys.stdout.isatty() else Console())
    for name, at_s in soak.injected:
        report.add(fault=name, at_s=round(at_s - soak.started_s, 1))
    for interval in soak.timeline:
        report.add(**asdict(interval))
    if chosen.json is not None:
        report.write(chosen.json)
    return 1 if report.missed else 0


def main() -> int:
    """Run the soak; 1 when a goal was missed."""
    chosen = _options()
    warn_if_busy()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    soak = Soak(chosen.minutes)
    # Ctrl-C ends what runs, and then counts what there is.
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        if chosen.logs is not None:
            chosen.logs.mkdir(parents=True, exist_ok=True)
            folder = chosen.logs
        else:
            name = tempfile.TemporaryDirectory(prefix="breakwater-soak-")
            folder = Path(stack.enter_context(name))
        stage = Stage(folder, workers=chosen.workers, shared_memory=chosen.shared_memory)
        stack.callback(stage.close)
        uvloop.run(soak.run(stage, chosen.rate))
    if not soak.started_s:
        print("stopped before anything was sent", file=sys.stderr)
        return 130
    return _finish(soak, chosen)


if __name__ == "__main__":
    sys.exit(main())
