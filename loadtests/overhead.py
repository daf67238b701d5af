"""What Breakwater costs beside Triton: throughput, latency and CPU against direct, nginx and Envoy.

perf_analyzer drives one real Triton, directly and through each proxy in turn. Every round measures
every proxy, so that a disturbance on the machine hits all of them; the figures are medians over
rounds, the ratios medians of each round's ratio. CPU is that of the proxy's processes over the
requests Triton counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.harness import (
    Child,
    Report,
    accepts,
    cpu_s,
    free_port,
    median,
    options,
    warn_if_busy,
)
from loadtests.peers import Load, PerfAnalyzer, start_envoy, start_nginx
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
from tuning.triton import EmbeddedTriton

CONCURRENCIES = (1, 8)
IMAGES = 16
"""Different images sent in turn; at the calibrated rate about one of them is purified."""
DETECTORS = ("residual", "margin", "feature_squeezing")
MODES = {
    "breakwater observe": {"mode": "observe"},
    "breakwater enforce sequential": {"mode": "enforce", "dispatch": "sequential"},
    "breakwater enforce speculative": {"mode": "enforce", "dispatch": "speculative"},
}
PASS_THROUGH = "breakwater pass-through"
SHARED_MEMORY = "breakwater shared memory"
MEMORY_ALWAYS = "breakwater shared memory always"
PROXIES: dict[str, dict[str, str | int]] = {
    PASS_THROUGH: {},
    SHARED_MEMORY: {"upstream_shared_memory": "system"},
    # Small tensors, too: whether the bound below which they go inline is in the right place.
    MEMORY_ALWAYS: {"upstream_shared_memory": "system", "upstream_shared_memory_from_kb": 0},
}
CASES = ("direct", "nginx", "envoy", "bytes-only", "relay", *PROXIES, *MODES)
# CPU per request of pass-through over nginx, at concurrency 8, where the machine is busy and the
# figure is the cost of the work rather than of waking up.
GOAL_CONCURRENCY = 8
GOALS_VS_NGINX = {"12 KB": "<= 4.5", "600 KB": "<= 2.2"}
GOALS_WITH_MEMORY = {"12 KB": "<= 4.0", "600 KB": "<= 1.8"}
GOAL_VS_BYTES_ONLY = "<= 1.15"

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Case:
    """One way to reach Triton."""

    address: str
    pid: int | None
    """The proxy's process; None for direct."""


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    load: Load
    cpu_ms: float
    """Proxy CPU per request, milliseconds."""


def rate(sample: Sample) -> float:
    """Requests per second."""
    return sample.load.throughput_per_s


def cpu(sample: Sample) -> float:
    """Proxy CPU per request, milliseconds."""
    return sample.cpu_ms


def requests_served(triton: EmbeddedTriton, model: str) -> int:
    """How many requests of a model Triton has answered."""
    url = f"http://127.0.0.1:{triton.http_port}/v2/models/{model}/stats"
    with urllib.request.urlopen(url) as answer:
        statistics = json.load(answer)["model_stats"][0]["inference_stats"]
    return int(statistics["success"]["count"])


def start_bytes_only(folder: Path, upstream: str, *more: str) -> tuple[Child, str]:
    """Start the yardstick proxy; `--relay` makes it pass on metadata and deadlines."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    child = Child(
        "bytes-only",
        [
            *(sys.executable, "-m", "loadtests.bytes_only"),
            *("--listen", address, "--upstream", upstream, *more),
        ],
        log=folder / f"bytes_only{''.join(more)}.log",
        is_ready=lambda: accepts(port),
    )
    return child, address


def start_cases(stack: ExitStack, names: list[str], folder: Path, upstream: str) -> dict[str, Case]:
    """Start the named proxies; they stay up side by side and end with the stack."""
    starters: dict[str, Callable[[], tuple[Child, str]]] = {
        "nginx": lambda: start_nginx(folder, upstream),
        "envoy": lambda: start_envoy(folder, upstream),
        "bytes-only": lambda: start_bytes_only(folder, upstream),
        "relay": lambda: start_bytes_only(folder, upstream, "--relay"),
    }
    for name, settings in PROXIES.items():
        path = folder / f"{name.replace(' ', '-')}.yaml"
        starters[name] = lambda path=path, settings=settings: start_breakwater(  # type: ignore[misc]
            write_config(path, upstream, {}, **settings)
        )
    if any(name in MODES for name in names):
        folders = {t.model: calibrate(folder, t, upstream, DETECTORS) for t in TENSORS}
        for name, policy in MODES.items():
            models = {m: defended(at, DETECTORS, **policy) for m, at in folders.items()}
            path = folder / f"{name.replace(' ', '-')}.yaml"
            starters[name] = lambda path=path, models=models: start_breakwater(  # type: ignore[misc]
                write_config(path, upstream, models)
            )
    cases = {"direct": Case(upstream, None)}
    for name in names:
        if name != "direct":
            child, address = starters[name]()
            stack.callback(child.stop)
            cases[name] = Case(address, child.pid)
    return {name: cases[name] for name in names}


def measure(
    case: Case, triton: EmbeddedTriton, analyzer: PerfAnalyzer, tensor: Tensor, concurrency: int
) -> Sample:
    """Run perf_analyzer once through one case."""
    served = requests_served(triton, tensor.model)
    spent_s = cpu_s(case.pid) if case.pid else 0.0
    data = analyzer.folder / f"{tensor.model}.json"
    load = analyzer.run(case.address, tensor.model, data, concurrency)
    spent_s = cpu_s(case.pid) - spent_s if case.pid else 0.0
    served = requests_served(triton, tensor.model) - served
    return Sample(load, 1000 * spent_s / served)


def measure_all(
    cases: dict[str, Case], triton: EmbeddedTriton, analyzer: PerfAnalyzer, rounds: int
) -> dict[Key, list[Sample]]:
    """Every case at every size and concurrency, once a round."""
    for tensor in TENSORS:
        write_requests(analyzer.folder / f"{tensor.model}.json", tensor.side, IMAGES)
    # The first passes of torch and of each batch size are many times dearer than any later one.
    for case in (cases[name] for name in cases if name in MODES):
        for tensor in TENSORS:
            measure(case, triton, analyzer, tensor, max(CONCURRENCIES))
    keys = [(n, t.name, c) for t in TENSORS for c in CONCURRENCIES for n in cases]
    samples: dict[Key, list[Sample]] = {key: [] for key in keys}
    tensors = {tensor.name: tensor for tensor in TENSORS}
    columns = (TextColumn("{task.description:<52}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=rounds * len(keys))
        for _ in range(rounds):
            for key in keys:
                name, size, concurrency = key
                progress.update(task, description=f"{name}, {size}, concurrency {concurrency}")
                sample = measure(cases[name], triton, analyzer, tensors[size], concurrency)
                samples[key].append(sample)
                progress.advance(task)
    return samples


def ratio(taken: list[Sample], base: list[Sample], of: Callable[[Sample], float]) -> float | None:
    """The median over rounds of one case's value over another's, or None where that is zero.

    Within a round the two ran seconds apart, so that what disturbed one disturbed the other.
    """
    pairs = [(of(sample), of(other)) for sample, other in zip(taken, base, strict=True)]
    if any(other == 0 for _, other in pairs):
        return None
    return round(median([value / other for value, other in pairs]), 3)


def summarise(samples: dict[Key, list[Sample]]) -> Report:
    """Medians over rounds, as ratios to nginx, and the figures with a goal."""
    report = Report("Overhead")
    for key, taken in samples.items():
        name, size, concurrency = key
        nginx = samples.get(("nginx", size, concurrency))
        report.add(
            proxy=name,
            tensor=size,
            concurrency=concurrency,
            throughput_per_s=round(median([s.load.throughput_per_s for s in taken]), 1),
            throughput_vs_nginx=ratio(taken, nginx, rate) if nginx else None,
            p50_ms=round(median([s.load.p50_ms for s in taken]), 3),
            p99_ms=round(median([s.load.p99_ms for s in taken]), 3),
            proxy_cpu_ms=round(median([s.cpu_ms for s in taken]), 4),
            cpu_vs_nginx=ratio(taken, nginx, cpu) if nginx else None,
        )
    for tensor in TENSORS:
        at = (tensor.name, GOAL_CONCURRENCY)
        ours = samples.get((PASS_THROUGH, *at))
        told: dict[str, str | int] = {"tensor": tensor.name, "concurrency": GOAL_CONCURRENCY}
        goals = {"nginx": GOALS_VS_NGINX[tensor.name], "bytes-only": GOAL_VS_BYTES_ONLY}
        for other, goal in goals.items():
            base = samples.get((other, *at))
            if ours and base and (reached := ratio(ours, base, cpu)) is not None:
                report.figure(f"pass-through CPU / {other} CPU", reached, goal, **told)
        lent, nginx = samples.get((SHARED_MEMORY, *at)), samples.get(("nginx", *at))
        if lent and nginx and (reached := ratio(lent, nginx, cpu)) is not None:
            goal = GOALS_WITH_MEMORY[tensor.name]
            report.figure("shared memory CPU / nginx CPU", reached, goal, **told)
        relay = samples.get(("relay", *at))
        if ours and relay and (reached := ratio(ours, relay, cpu)) is not None:
            report.add(figure="pass-through CPU / relay CPU", value=reached, **told)
    return report


def main() -> int:
    """Run the benchmark; 1 when a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    chosen = parser.parse_args()
    warn_if_busy()
    rounds = chosen.rounds or (2 if chosen.quick else 5)
    window_ms = 700 if chosen.quick else 1000
    with tempfile.TemporaryDirectory(prefix="breakwater-overhead-") as name, ExitStack() as stack:
        folder = Path(name)
        triton = stack.enter_context(EmbeddedTriton(MODELS))
        cases = start_cases(stack, chosen.cases, folder, triton.grpc_address)
        samples = measure_all(cases, triton, PerfAnalyzer(folder, window_ms), rounds)
    return summarise(samples).finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
