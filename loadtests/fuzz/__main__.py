"""Fuzz what reads and edits messages: each case is read by Breakwater and by a reference.

Cases come from a grammar of the protocol with the liberties of its encoding, from damage to those,
and, guided by coverage, from atheris (where it is installed). References: protobuf in both of its
Python implementations and in C++ (protoc), numpy, and a real Triton, which answers with what it
computed on. Equal seeds make equal cases.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests import harness
from loadtests.fuzz import guided, second, server
from loadtests.fuzz.tally import Tally
from loadtests.fuzz.targets import TARGETS, fuzz

PARTS = ("targets", "readers", "guided", "triton")
CHUNK = 5_000
_REASONS = 12
"""Most reasons of refusal listed for each target; the rest are added up."""


def main() -> int:
    """Run it, print and write the table; 1 when anything was found."""
    parser = harness.options(__doc__)
    parser.add_argument("--cases", type=int, default=5_000_000, metavar="N", help="of all targets")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M", help="at most")
    parser.add_argument("--only", nargs="+", choices=(*TARGETS, *PARTS), default=PARTS)
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    options = parser.parse_args()
    cases = min(options.cases, 50_000) if options.quick else options.cases
    report = harness.Report("Differential fuzzing")
    wanted = options.only
    names = [name for name in TARGETS if "targets" in wanted or name in wanted]
    tallies: dict[str, Tally] = {}
    ends_s = time.monotonic() + 60 * options.minutes
    if names:
        tallies |= _all(names, cases, options.seed, options.processes, ends_s)
    if "readers" in wanted:
        tallies |= second.fuzz(options.seed, max(200, cases // 50))
    if "guided" in wanted:
        tallies |= guided.fuzz(options.seed, cases // 10)
    if "triton" in wanted:
        tallies |= server.fuzz(options.seed, max(200, cases // 125), report)
    _tell(report, tallies)
    return report.finish(options.json)


def _chunks(names: list[str], cases: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """(target, seed, cases), the targets in turn as their shares are."""
    whole = sum(TARGETS[name].share for name in names)
    left = {name: max(1, round(cases * TARGETS[name].share / whole)) for name in names}
    total = dict(left)
    turn = 0
    while any(left.values()):
        name = max(left, key=lambda each: left[each] / total[each])
        size = min(left[name], CHUNK)
        left[name] -= size
        turn += 1
        yield name, seed * 1_000_000 + turn, size


def _all(
    names: list[str], cases: int, seed: int, processes: int, ends_s: float
) -> dict[str, Tally]:
    tallies = {name: Tally() for name in names}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    chunks = _chunks(names, cases, seed)
    console = Console(stderr=True)
    with (
        ProcessPoolExecutor(processes) as pool,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        task = progress.add_task("fuzzing", total=cases)
        running: dict[Future[Tally], str] = {}
        while True:
            while len(running) < 2 * processes and time.monotonic() < ends_s:
                chunk = next(chunks, None)
                if chunk is None:
                    break
                running[pool.submit(fuzz, *chunk)] = chunk[0]
            if not running:
                return tallies
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                tally = future.result()
                tallies[running.pop(future)].add(tally)
                progress.advance(task, tally.cases)


def _tell(report: harness.Report, tallies: dict[str, Tally]) -> None:
    found = Tally()
    for name, tally in tallies.items():
        found.add(tally)
        report.add(
            target=name,
            cases=tally.cases,
            accepted=tally.accepted,
            refused=sum(tally.refused.values()),
            differences=tally.found["difference"],
            crashes=tally.found["crash"],
            hangs=tally.found["hang"],
            seconds=round(tally.seconds, 1),
            slowest_ms=round(tally.slowest_ms, 1),
            peak_mb=round(tally.peak_mb),
        )
    for name, tally in tallies.items():
        common = tally.refused.most_common(_REASONS)
        for text, count in common:
            report.add(target=name, refused_because=text, count=count)
        rest = sum(tally.refused.values()) - sum(count for _, count in common)
        if rest:
            report.add(target=name, refused_because="other reasons", count=rest)
    for kind, text, data in found.examples:
        report.add(found=kind, text=text, case=data)
    for what, title in (("difference", "differences"), ("crash", "crashes"), ("hang", "hangs")):
        report.figure(title, found.found[what], "<= 0", cases=found.cases)
    report.add(figure="cases", value=found.cases, accepted=found.accepted)


if __name__ == "__main__":
    sys.exit(main())
