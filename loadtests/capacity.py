"""How much each configuration takes: the knee, where p99 reaches twice that of an idle sidecar.

One real Triton with a model that costs next to nothing, and Breakwater as pass-through, observing,
and enforcing with sequential and speculative dispatch, at 12 KB and 600 KB. Random arrivals, on
time whether or not earlier ones are answered; latency counts from when a request was due. The
clients and Triton share the machine with the sidecar, so the knee is that of all three together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.harness import Report, cpu_s, options, warn_if_busy
from loadtests.overhead import DETECTORS, MODES, PASS_THROUGH
from loadtests.sidecar import (
    MODELS,
    TENSORS,
    Tensor,
    calibrate,
    defended,
    images,
    start_breakwater,
    write_config,
)
from proxy import wire
from tuning.knee import QUICK, Capacity, Effort, measure_capacity
from tuning.load import Client
from tuning.triton import EmbeddedTriton

DIRECT = "direct"
CASES = (DIRECT, PASS_THROUGH, *MODES)
_IMAGES = 32
_CPU_REQUESTS = 300


def messages(tensor: Tensor) -> list[bytes]:
    """Requests of one image each."""
    x = images(tensor.side, _IMAGES, seed=1).astype(np.float32) / 255
    return [
        wire.build_infer_request(
            tensor.model, "", [("image", "FP32", (1, *one.shape), one.tobytes())]
        )
        for one in x
    ]


async def measure(
    address: str, pid: int | None, tensor: Tensor, effort: Effort
) -> tuple[Capacity, float | None]:
    """The capacity at an address, and the CPU milliseconds of a process per request there."""
    async with Client(address, messages(tensor)) as client:
        capacity = await measure_capacity(client, effort)
        if pid is None:
            return capacity, None
        rate = capacity.knee.throughput_per_s / 2 or 250 / capacity.idle_p50_ms
        spent_s = cpu_s(pid)
        load = await client.open_loop(rate, _CPU_REQUESTS)
        spent_s = cpu_s(pid) - spent_s
    return capacity, 1000 * spent_s / max(len(load.latency_ms), 1)


def add_row(
    report: Report, case: str, tensor: Tensor, capacity: Capacity, cpu_ms: float | None
) -> None:
    """One row for the knee."""
    knee = capacity.knee
    report.add(
        proxy=case,
        tensor=tensor.name,
        idle_p50_ms=round(capacity.idle_p50_ms, 3),
        idle_p99_ms=round(capacity.idle_p99_ms, 3),
        knee_per_s=round(knee.throughput_per_s, 1),
        knee_p99_ms=round(knee.best.p99_ms, 3) if knee.best else None,
        is_bounded=knee.is_bounded,
        proxy_cpu_ms=None if cpu_ms is None else round(cpu_ms, 3),
        steps=len(knee.steps),
    )


@dataclass(frozen=True)
class Bench:
    """Where the cases run."""

    folder: Path
    upstream: str
    effort: Effort

    def capacity(
        self, case: str, tensor: Tensor, calibration: Path | None
    ) -> tuple[Capacity, float | None]:
        """Start one case, measure it and end it."""
        if case == DIRECT:
            return uvloop.run(measure(self.upstream, None, tensor, self.effort))
        models = {}
        if calibration is not None and case in MODES:
            models = {tensor.model: defended(calibration, DETECTORS, **MODES[case])}
        file = self.folder / f"{case}-{tensor.model}.yaml".replace(" ", "-")
        child, address = start_breakwater(write_config(file, self.upstream, models))
        try:
            return uvloop.run(measure(address, child.pid, tensor, self.effort))
        finally:
            child.stop()


def _options() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    sizes = [tensor.name for tensor in TENSORS]
    parser.add_argument("--tensors", nargs="+", choices=sizes, default=sizes, metavar="SIZE")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark."""
    chosen = _options()
    warn_if_busy()
    tensors = [tensor for tensor in TENSORS if tensor.name in chosen.tensors]
    report = Report("Capacity")
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
    with (
        tempfile.TemporaryDirectory(prefix="breakwater-capacity-") as name,
        EmbeddedTriton(MODELS) as triton,
        Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress,
    ):
        bench = Bench(Path(name), triton.grpc_address, QUICK if chosen.quick else Effort())
        task = progress.add_task("calibrating", total=len(tensors) * len(chosen.cases))
        for tensor in tensors:
            calibration = None
            if set(chosen.cases) & MODES.keys():
                calibration = calibrate(bench.folder, tensor, bench.upstream, DETECTORS)
            for case in chosen.cases:
                progress.update(task, description=f"{case}, {tensor.name}")
                add_row(report, case, tensor, *bench.capacity(case, tensor, calibration))
                progress.advance(task)
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
