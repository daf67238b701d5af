"""What the defence adds to a request's time, over Breakwater's own pass-through.

The upstream is a real Triton whose models take 5 ms. One blocking client asks all sidecars in turn,
request by request, so that a disturbance of the machine hits all alike; a round's figure is the
difference of medians (or of 99th percentiles) within it, and the figures are medians over rounds.
With concurrency 4, four such clients run side by side, each in turn through all sidecars.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from loadtests.harness import Report, median, options, warn_if_busy
from loadtests.sidecar import (
    MODELS,
    Tensor,
    calibrate,
    defended,
    images,
    start_breakwater,
    write_config,
)
from proxy import rpc, wire
from tuning.triton import EmbeddedTriton


class Size(Tensor):
    """A size of request, to a model that takes its time."""

    @property
    def model(self) -> str:
        """The model in loadtests/models that takes it."""
        return f"{super().model}_5ms"


SIZES = (Size("12 KB", 32, 200), Size("600 KB", 224, 200))
DETECTORS = ("high_frequency", "srm", "margin", "energy")
"""Two that look at the input only, and two at the model's answer."""
REMEMBERING = (*DETECTORS, "history")
OBSERVE = {"mode": "observe"}
# Flagged requests take another way; here only the time of ordinary ones is asked for.
SPECULATIVE = {"mode": "enforce", "action": "flag", "dispatch": "speculative"}


@dataclass(frozen=True)
class Policy:
    """A way to defend the model."""

    detectors: tuple[str, ...]
    fields: Mapping[str, str]
    records: int | None = None
    """How many scores are kept of it; None: the default."""
    shadowed: bool = False
    """The same policy looks at every request once more, as a shadow."""


POLICIES: Mapping[str, Policy] = {
    "observe": Policy(DETECTORS, OBSERVE),
    "observe without records": Policy(DETECTORS, OBSERVE, records=0),
    "sequential": Policy(DETECTORS, {**SPECULATIVE, "dispatch": "sequential"}),
    "speculative": Policy(DETECTORS, SPECULATIVE),
    "speculative without records": Policy(DETECTORS, SPECULATIVE, records=0),
    "speculative with a shadow": Policy(DETECTORS, SPECULATIVE, shadowed=True),
    "speculative with history": Policy(REMEMBERING, SPECULATIVE),
}
PASS_THROUGH = "pass-through"
GOAL_MS = "<= 0.3"
CONCURRENCIES = (1, 4)
IMAGES = 16

Times = dict[str, list[float]]
"""Milliseconds by sidecar, in the order of asking."""


def messages(size: Size) -> list[bytes]:
    """Requests about different images."""
    x = images(size.side, IMAGES, seed=1).astype(np.float32) / 255
    return [
        wire.build_infer_request(
            size.model, "", [("image", "FP32", (1, *one.shape), one.tobytes())], []
        )
        for one in x
    ]


def ask_in_turn(calls: Mapping[str, Any], data: Sequence[bytes], requests: int) -> Times:
    """Ask every sidecar `requests` times, one after the other."""
    times: Times = {name: [] for name in calls}
    order = list(calls.items())
    for i in range(requests):
        for name, call in order[i % len(order) :] + order[: i % len(order)]:
            started = time.perf_counter()
            call(data[i % len(data)], timeout=60)
            times[name].append(1000 * (time.perf_counter() - started))
    return times


def ask_together(
    calls: Mapping[str, Any], data: Sequence[bytes], requests: int, concurrency: int
) -> Times:
    """Several clients, each asking through one sidecar at a time, all through the same."""
    times: Times = {}
    with ThreadPoolExecutor(concurrency) as clients:
        for name, call in calls.items():
            each = requests // concurrency
            asked = [
                clients.submit(ask_in_turn, {name: call}, data, each) for _ in range(concurrency)
            ]
            times[name] = [ms for part in asked for ms in part.result()[name]]
    return times


def start(
    stack: ExitStack, folder: Path, upstream: str, size: Size, names: Sequence[str]
) -> dict[str, str]:
    """Start the sidecars of a size; their addresses by name."""
    configs = {PASS_THROUGH: write_config(folder / f"{size.side}-pass.yaml", upstream, {})}
    calibrated: dict[tuple[str, ...], Path] = {}
    for name in names:
        policy = POLICIES[name]
        detectors = policy.detectors
        if detectors not in calibrated:
            apart = folder / str(len(detectors))
            apart.mkdir(exist_ok=True)
            calibrated[detectors] = calibrate(apart, size, upstream, detectors)
        entry = defended(calibrated[detectors], detectors, **policy.fields)
        path = folder / f"{size.side}-{name.replace(' ', '-')}.yaml"
        if policy.shadowed:
            second = write_config(path.with_suffix(".second.yaml"), upstream, {size.model: entry})
            entry["shadow"] = {"policy": str(second), "share": 1.0}
        kept = {} if policy.records is None else {"records": {"capacity": policy.records}}
        configs[name] = write_config(path, upstream, {size.model: entry}, **kept)
    addresses = {}
    for name, path in configs.items():
        child, addresses[name] = start_breakwater(path)
        stack.callback(child.stop)
    return addresses


def percentile(values: Sequence[float], q: float) -> float:
    """A percentile of some times."""
    array: NDArray[np.float64] = np.asarray(values)
    return float(np.percentile(array, q))


def tell(report: Report, size: Size, concurrency: int, rounds: Sequence[Times]) -> None:
    """Add the figures of one size and concurrency."""
    where: dict[str, str | int] = {"size": size.name, "concurrency": concurrency}
    report.add(
        case=PASS_THROUGH,
        **where,
        p50_ms=median([percentile(times[PASS_THROUGH], 50) for times in rounds]),
        p99_ms=median([percentile(times[PASS_THROUGH], 99) for times in rounds]),
    )
    for name in [name for name in POLICIES if name in rounds[0]]:
        added = [
            [percentile(times[name], q) - percentile(times[PASS_THROUGH], q) for times in rounds]
            for q in (50, 99)
        ]
        report.add(
            case=name,
            **where,
            added_p50_ms=median(added[0]),
            added_p99_ms=median(added[1]),
            least_added_p50_ms=min(added[0]),
            most_added_p50_ms=max(added[0]),
        )
        if name == "speculative" and concurrency == 1 and size.side == SIZES[0].side:
            report.figure("added p50 ms, speculative", median(added[0]), GOAL_MS, **where)


def main() -> int:
    """Run the benchmark; 1 when the goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=[s.name for s in SIZES], help="only these")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, help="only these")
    arguments = parser.parse_args()
    rounds, requests = (3, 60) if arguments.quick else (7, 200)
    names = [name for name in POLICIES if name in (arguments.policies or POLICIES)]
    warn_if_busy()
    report = Report("Added latency, upstream of 5 ms")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        triton = stack.enter_context(EmbeddedTriton(MODELS, log=folder / "triton.log"))
        for size in SIZES:
            if arguments.sizes and size.name not in arguments.sizes:
                continue
            with ExitStack() as sidecars:
                addresses = start(sidecars, folder, triton.grpc_address, size, names)
                calls = {}
                for name, address in addresses.items():
                    channel = sidecars.enter_context(grpc.insecure_channel(address))
                    calls[name] = channel.unary_unary(rpc.INFER.path)
                data = messages(size)
                for concurrency in CONCURRENCIES:
                    ask_together(calls, data, 40, concurrency)  # the first passes are dearer
                    taken = [
                        ask_in_turn(calls, data, requests)
                        if concurrency == 1
                        else ask_together(calls, data, requests, concurrency)
                        for _ in range(rounds)
                    ]
                    tell(report, size, concurrency, taken)
    return report.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
