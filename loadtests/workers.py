"""What a second worker costs and brings: throughput, CPU per request, who gets the connections.

Several perf_analyzer processes drive `breakwater serve` with one worker and with two, in turn, one
real Triton behind both; all of it on this machine, so that throughput can rise only while cores
are idle. Figures are medians over rounds, ratios medians of each round's ratio; CPU is that of the
supervisor and all workers over the requests they answered. Two workers get the clients of one, and
twice as many: a worker that has less to do wakes up for fewer requests at a time, which costs more
for each, so that only the latter tells what sharing the work costs. The kernel gives each
connection, not each request, to a worker: how evenly is reported.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from loadtests.harness import READY_TIMEOUT_S, Report, cpu_s, median, options, warn_if_busy
from loadtests.peers import Load, PerfAnalyzer
from loadtests.sidecar import (
    MODELS,
    TENSORS,
    Tensor,
    calibrate,
    defended,
    start_breakwater,
    write_config,
    write_requests,
)
from proxy.supervisor import worker_socket
from tuning.triton import EmbeddedTriton

WORKERS = (1, 2)
CASES = ((1, 4), (2, 4), (2, 8))
"""Workers and clients: perf_analyzer processes with a connection each."""
IN_FLIGHT = 2
"""Requests at a time of one client."""
IMAGES = 16
DETECTORS = ("residual", "margin")
MODES = ("pass-through", "enforce speculative")
GOAL = "<= 1.10"
"""CPU per request at two workers over that at one, at the same load for each worker."""

Key = tuple[str, str, int, int]
"""Mode, tensor, workers and clients."""


@dataclass(frozen=True)
class Sidecar:
    """A running `breakwater serve`."""

    address: str
    admin: str
    pid: int
    workers: int

    def answered(self) -> int:
        """Requests its workers have answered, all together."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics") as answer:
            return _requests(answer.read().decode())

    def answered_by_each(self) -> list[int]:
        """The same of each worker that lives."""
        folder = _worker_folder(self.pid)
        return [_requests(_ask(worker_socket(folder, i))) for i in range(self.workers)]

    def wait_for_all(self) -> None:
        """Return when every worker is ready.

        Raises:
            TimeoutError: they were not in time.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            with urllib.request.urlopen(f"http://{self.admin}/ready") as answer:
                if json.load(answer)["workers_ready"] == self.workers:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all of {self.workers} workers became ready")
            time.sleep(0.1)


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    load: Load
    cpu_ms: float
    """CPU per request, milliseconds."""
    busiest: float
    """Share of the requests that the busiest worker answered."""


def _requests(exposition: str) -> int:
    families = text_string_to_metric_families(exposition)
    samples = (sample for family in families for sample in family.samples)
    return int(sum(s.value for s in samples if s.name == "breakwater_requests_total"))


def _worker_folder(supervisor: int) -> Path:
    """Where the workers' sockets are: it is on their command line."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    words = Path(f"/proc/{children[0]}/cmdline").read_bytes().split(b"\0")
    return Path(words[words.index(b"--worker-dir") + 1].decode())


def _ask(path: Path) -> str:
    connection = http.client.HTTPConnection("worker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def measure(sidecar: Sidecar, tensor: Tensor, clients: int, folder: Path, window_ms: int) -> Sample:
    """Drive one sidecar with so many clients at once."""
    data = folder / f"{tensor.model}.json"

    def drive(client: int) -> Load:
        own = folder / f"client-{client}"
        own.mkdir(exist_ok=True)
        analyzer = PerfAnalyzer(own, window_ms)
        return analyzer.run(sidecar.address, tensor.model, data, IN_FLIGHT)

    spent_s, before = cpu_s(sidecar.pid), sidecar.answered()
    each_before = sidecar.answered_by_each() if sidecar.workers > 1 else [before]
    with ThreadPoolExecutor(clients) as pool:
        loads = list(pool.map(drive, range(clients)))
    spent_s, answered = cpu_s(sidecar.pid) - spent_s, sidecar.answered() - before
    each = sidecar.answered_by_each() if sidecar.workers > 1 else [before + answered]
    shares = [now - then for now, then in zip(each, each_before, strict=True)]
    return Sample(_together(loads), 1000 * spent_s / answered, max(shares) / sum(shares))


def _together(loads: Iterable[Load]) -> Load:
    """What all clients saw: the sum of their rates, the middle of their medians, the worst p99."""
    every = list(loads)
    return Load(
        throughput_per_s=sum(load.throughput_per_s for load in every),
        p50_ms=median([load.p50_ms for load in every]),
        p99_ms=max(load.p99_ms for load in every),
    )


def start(stack: ExitStack, folder: Path, upstream: str) -> dict[tuple[str, int], Sidecar]:
    """Start every mode with every number of workers; they stay up side by side."""
    at = {t.model: calibrate(folder, t, upstream, DETECTORS) for t in TENSORS}
    speculative = {"mode": "enforce", "dispatch": "speculative"}
    models: dict[str, dict[str, Any]] = {
        "pass-through": {},
        "enforce speculative": {m: defended(c, DETECTORS, **speculative) for m, c in at.items()},
    }
    running = {}
    for mode in MODES:
        for workers in WORKERS:
            path = folder / f"{mode.replace(' ', '-')}-{workers}.yaml"
            child, address = start_breakwater(write_config(path, upstream, models[mode]), workers)
            stack.callback(child.stop)
            admin = yaml.safe_load(path.read_text())["admin"]
            running[mode, workers] = sidecar = Sidecar(address, admin, child.pid, workers)
            sidecar.wait_for_all()
    return running


def measure_all(
    running: dict[tuple[str, int], Sidecar], folder: Path, *, rounds: int, window_ms: int
) -> dict[Key, list[Sample]]:
    """Every mode, size and case, once a round and before the first."""
    keys = [(mode, t.name, *case) for t in TENSORS for mode in MODES for case in CASES]
    samples: dict[Key, list[Sample]] = {key: [] for key in keys}
    tensors = {tensor.name: tensor for tensor in TENSORS}
    for turn in range(-1, rounds):
        for key in keys:
            mode, size, workers, clients = key
            sample = measure(running[mode, workers], tensors[size], clients, folder, window_ms)
            if turn >= 0:  # the first passes of torch are many times dearer than any later one
                samples[key].append(sample)
    return samples


def summarise(samples: dict[Key, list[Sample]]) -> Report:
    """Medians over rounds, and the ratios of two workers to one."""
    report = Report("Workers")
    for (mode, size, workers, clients), taken in samples.items():
        report.add(
            mode=mode,
            tensor=size,
            workers=workers,
            clients=clients,
            throughput_per_s=round(median([s.load.throughput_per_s for s in taken]), 1),
            p50_ms=round(median([s.load.p50_ms for s in taken]), 3),
            p99_ms=round(median([s.load.p99_ms for s in taken]), 3),
            cpu_ms=round(median([s.cpu_ms for s in taken]), 4),
            busiest_share=round(median([s.busiest for s in taken]), 3),
            busiest_share_most=round(max(s.busiest for s in taken), 3),
        )
    for (mode, size, workers, clients), taken in samples.items():
        base = samples[mode, size, *CASES[0]]
        if workers == 1:
            continue
        told: dict[str, str | int] = {"mode": mode, "tensor": size, "clients": clients}
        cost = median([two.cpu_ms / one.cpu_ms for one, two in zip(base, taken, strict=True)])
        if clients == workers * CASES[0][1]:
            report.figure("CPU per request, 2 workers / 1", cost, GOAL, **told)
        else:
            report.add(figure="CPU per request, 2 workers / 1", **told, value=round(cost, 3))
        rates = [
            two.load.throughput_per_s / one.load.throughput_per_s
            for one, two in zip(base, taken, strict=True)
        ]
        value = round(median(rates), 3)
        report.add(figure="throughput, 2 workers / 1", **told, value=value)
    return report


def main() -> int:
    """Run the benchmark; 1 when a figure misses its goal."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    chosen = parser.parse_args()
    warn_if_busy()
    rounds = chosen.rounds or (2 if chosen.quick else 5)
    with tempfile.TemporaryDirectory(prefix="breakwater-workers-") as name, ExitStack() as stack:
        folder = Path(name)
        for tensor in TENSORS:
            write_requests(folder / f"{tensor.model}.json", tensor.side, IMAGES)
        triton = stack.enter_context(EmbeddedTriton(MODELS))
        running = start(stack, folder, triton.grpc_address)
        window_ms = 500 if chosen.quick else 1000
        samples = measure_all(running, folder, rounds=rounds, window_ms=window_ms)
    return summarise(samples).finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
