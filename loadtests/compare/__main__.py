"""Defended throughput beside what a user would run instead: the same work, one real Triton.

For each request every system asks the model about the image, a copy of 5 bits and a median-filtered
copy, compares the answers, and serves that to the JPEG-compressed image where they differ (feature
squeezing, Xu et al. 2018). Systems:

breakwater        enforce, purify, speculative, calibrated by `breakwater calibrate`
mlserver + art    (a) a KServe-style transformer: an MLServer runtime with ART's preprocessors
triton bls        (b) a Python-backend model in the same Triton, with Breakwater's own torch parts
grpc.aio + art    (c) ART called in process by a plain proxy

beside Triton without a defence, directly and through Breakwater as a pass-through. Where a number
of workers or instances is to be chosen, each system gets its best. `--data DIR` has
`cifar10/test.npz` and `photos/`. Alone on two cores about 10 minutes, with --quick 4.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.compare.cases import (
    BLS,
    Case,
    Cases,
    Checked,
    answered,
    check,
    fastest,
    start_cases,
    unjudged,
)
from loadtests.compare.repository import write_repository
from loadtests.compare.summary import Key, Sample, summarise
from loadtests.compare.workload import Workload, workloads
from loadtests.harness import Report, cpu_s, options, warn_if_busy
from loadtests.peers import PerfAnalyzer
from tuning.triton import EmbeddedTriton

CONCURRENCIES = (1, 8)
TRITON_START_S = 240.0


@dataclass(frozen=True)
class Bench:
    """Measures one case at a time."""

    triton: EmbeddedTriton
    analyzer: PerfAnalyzer
    checked: dict[Case, Checked]

    def measure(self, case: Case, workload: Workload, concurrency: int) -> Sample:
        """Run perf_analyzer once through one case.

        CPU is per request of the client. Triton counts those to the BLS model, which puts several
        together; behind the others the classifier's calls are counted, and how many of them a
        request makes is known from the check.
        """
        is_bls = case.system == BLS
        counted = case.model if is_bls else workload.classifier
        calls = answered(self.triton, counted)
        spent = [cpu_s(pid) if pid else 0.0 for pid in (case.pid, self.triton.pid)]
        data = self.analyzer.folder / f"{workload.classifier}.json"
        load = self.analyzer.run(case.address, case.model, data, concurrency)
        calls = answered(self.triton, counted) - calls
        requests = calls if is_bls else calls * len(workload.sent) / self.checked[case].calls
        proxy_s, triton_s = (
            (cpu_s(pid) if pid else 0.0) - before
            for pid, before in zip((case.pid, self.triton.pid), spent, strict=True)
        )
        return Sample(load, 1000 * proxy_s / requests, 1000 * triton_s / requests)


def choose(bench: Bench, cases: Cases, sizes: dict[str, Workload], report: Report) -> Cases:
    """Each system's fastest variant at each size, at the highest concurrency."""
    chosen: Cases = {}
    for size, workload in sizes.items():

        def rate(case: Case, size: str = size, workload: Workload = workload) -> float:
            speed = bench.measure(case, workload, max(CONCURRENCIES)).load.throughput_per_s
            report.add(tried=case.system, variant=case.variant, images=size, throughput_per_s=speed)
            return speed

        chosen[size] = fastest(cases[size], rate)
    return chosen


def measure_all(
    bench: Bench, cases: Cases, sizes: dict[str, Workload], rounds: int
) -> dict[Key, list[Sample]]:
    """Every case at every size and concurrency, once a round."""
    work = [(size, c, case) for size in sizes for c in CONCURRENCIES for case in cases[size]]
    samples: dict[Key, list[Sample]] = {(case.system, size, c): [] for size, c, case in work}
    columns = (TextColumn("{task.description:<52}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=rounds * len(work))
        for _ in range(rounds):
            for size, concurrency, case in work:
                told = f"{case.system}, {size}, concurrency {concurrency}"
                progress.update(task, description=told)
                taken = bench.measure(case, sizes[size], concurrency)
                samples[case.system, size, concurrency].append(taken)
                progress.advance(task)
    return samples


def run(folder: Path, data: Path, rounds: int, window_ms: int, report: Report) -> None:
    """The whole comparison."""
    say = Console(stderr=True).print
    say("reading images")
    pair = workloads(data)
    sizes = {workload.name: workload for workload in pair}
    with ExitStack() as stack:
        repository = write_repository(folder / "models", pair)
        say("starting Triton, calibrating Breakwater, starting the peers")
        triton = EmbeddedTriton(repository)
        stack.callback(triton.stop)
        triton.start(timeout_s=TRITON_START_S)
        cases = start_cases(stack, folder, pair, triton)
        say("checking every answer")
        checked = {case: check(case, sizes[size], triton) for size in sizes for case in cases[size]}
        for workload in pair:
            workload.write_requests(folder / f"{workload.classifier}.json")
        say("trying numbers of workers and instances")
        trial = Bench(triton, PerfAnalyzer(folder, 700), checked)
        chosen = choose(trial, cases, sizes, report)
        bench = Bench(triton, PerfAnalyzer(folder, window_ms), checked)
        samples = measure_all(bench, chosen, sizes, rounds)
        for case in {case for some in chosen.values() for case in some if case.admin}:
            if skipped := unjudged(case):
                # A defence that looked away was not measured.
                raise RuntimeError(f"{case.system}: {skipped} requests without a verdict")
        summarise(samples, chosen, checked, report)


def main() -> int:
    """Run the benchmark; 1 when a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder")
    parser.add_argument("--rounds", type=int, help="default 4, with --quick 1")
    given = parser.parse_args()
    # The command goes into the result, and where somebody keeps the data is no part of that.
    sys.argv = [part.replace(str(given.data), "DIR") for part in sys.argv]
    warn_if_busy()
    # Ended from outside, it still stops Triton and the peers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rounds = given.rounds or (1 if given.quick else 4)
    window_ms = 700 if given.quick else 1000
    report = Report("Peers")
    with tempfile.TemporaryDirectory(prefix="breakwater-compare-") as folder:
        run(Path(folder), given.data, rounds, window_ms, report)
    return report.finish(given.json)


if __name__ == "__main__":
    sys.exit(main())
