"""From samples to rows: medians over rounds, and the ratios that have a goal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.compare.cases import (
    ART_PROXY,
    BLS,
    BREAKWATER,
    DIRECT,
    MLSERVER,
    PASS_THROUGH,
    Case,
    Cases,
    Checked,
)
from loadtests.harness import Report, median
from loadtests.peers import Load

GOAL_CONCURRENCY = 8
GOALS = {MLSERVER: ">= 10", BLS: ">= 2", ART_PROXY: ">= 5"}

Key = tuple[str, str, int]
"""System, size, concurrency."""


@dataclass(frozen=True)
class Sample:
    """One measurement; CPU in milliseconds per request of the client."""

    load: Load
    proxy_cpu_ms: float
    triton_cpu_ms: float

    @property
    def total_cpu_ms(self) -> float:
        """What a request costs beside the client."""
        return self.proxy_cpu_ms + self.triton_cpu_ms


def summarise(
    samples: dict[Key, list[Sample]], cases: Cases, checked: dict[Case, Checked], report: Report
) -> None:
    """Add a row for each case, and the figures with a goal."""
    by_name = {(case.system, size): case for size, some in cases.items() for case in some}
    for (system, size, concurrency), taken in samples.items():
        case = by_name[system, size]
        report.add(
            system=system,
            variant=case.variant,
            images=size,
            concurrency=concurrency,
            flagged_of_20=checked[case].flagged,
            throughput_per_s=round(median([s.load.throughput_per_s for s in taken]), 1),
            p50_ms=round(median([s.load.p50_ms for s in taken]), 3),
            p99_ms=round(median([s.load.p99_ms for s in taken]), 3),
            proxy_cpu_ms=round(median([s.proxy_cpu_ms for s in taken]), 3),
            triton_cpu_ms=round(median([s.triton_cpu_ms for s in taken]), 3),
            total_cpu_ms=round(median([s.total_cpu_ms for s in taken]), 3),
        )
    for size in cases:
        ours = samples[BREAKWATER, size, GOAL_CONCURRENCY]
        direct = samples[DIRECT, size, GOAL_CONCURRENCY]
        for peer, goal in GOALS.items():
            reached = ratio(ours, samples[peer, size, GOAL_CONCURRENCY], _rate)
            told = f"defended throughput / {peer}"
            report.figure(told, reached, goal, images=size, concurrency=GOAL_CONCURRENCY)
            # No proxy can be faster than none: where this misses the goal, no defence can meet it
            # with these peers on this machine.
            ceiling = ratio(direct, samples[peer, size, GOAL_CONCURRENCY], _rate)
            _context(report, f"ceiling: undefended Triton / {peer}", size, ceiling)
            cheaper = ratio(samples[peer, size, GOAL_CONCURRENCY], ours, _cpu)
            _context(report, f"CPU per request, {peer} / defended", size, cheaper)
        bare = ratio(ours, samples[PASS_THROUGH, size, GOAL_CONCURRENCY], _rate)
        _context(report, "defended throughput / own pass-through", size, bare)


def _context(report: Report, figure: str, size: str, value: float) -> None:
    """A figure without a goal."""
    report.add(figure=figure, images=size, concurrency=GOAL_CONCURRENCY, value=round(value, 3))


def ratio(taken: list[Sample], base: list[Sample], of: Callable[[Sample], float]) -> float:
    """The median over rounds of one case's value over another's, run seconds apart."""
    return median([of(sample) / of(other) for sample, other in zip(taken, base, strict=True)])


def _rate(sample: Sample) -> float:
    return sample.load.throughput_per_s


def _cpu(sample: Sample) -> float:
    return sample.total_cpu_ms
