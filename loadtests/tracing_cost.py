"""What tracing costs the sidecar: CPU per request with it off, at 1 % and with every request.

12 KB pass-through requests, eight at a time, through `breakwater serve` to a real Triton; spans go
to a real OTLP server in a process of its own. Each round measures every case, so that a disturbance
on the machine hits all of them; the figures are medians over rounds, the differences medians of
each round's difference. `--before DIR` measures the sidecar of another checkout as well.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import uvloop

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
from loadtests.sidecar import BREAKWATER, MODELS, TENSORS, images, write_config
from proxy.allocator import keep_large_buffers
from proxy.flow import Flow
from proxy.pb import open_inference_pb2 as oip
from proxy.rpc import INFER
from proxy.tracing import settings
from proxy.tracing.tracing import Tracing
from tuning.triton import EmbeddedTriton

CONCURRENCY = 8
TENSOR = TENSORS[0]
ROUNDS, REQUESTS = 9, 1500
QUICK_ROUNDS, QUICK_REQUESTS = 5, 500
BEFORE, OFF = "before", "off"
CASES: dict[str, dict[str, Any]] = {
    OFF: {},
    "1 %": {"sample_ratio": 0.01},
    "every request, at most 50/s": {"sample_ratio": 1.0},
    "every request": {"sample_ratio": 1.0, "max_per_second": 10_000},
}
CONTEXT = (("traceparent", f"00-{7:032x}-{7:016x}-00"), ("tracestate", "a=1"))
"""Of a caller that has decided against: with it, `1 %` records nothing and passes it on."""


async def collect(port: int) -> None:
    """Take spans until the process is told to end."""
    server = grpc.aio.server()

    async def export(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b""

    handler = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(0)


def messages(count: int) -> list[bytes]:
    """Serialised requests with different images, all of one size."""
    made = []
    for image in images(TENSOR.side, count):
        request = oip.ModelInferRequest(model_name=TENSOR.model)
        request.inputs.add(name="image", datatype="FP32", shape=(1, *image.shape))
        request.raw_input_contents.append((image.astype("<f4") / 255).tobytes())
        made.append(request.SerializeToString())
    return made


async def drive(channel: grpc.aio.Channel, requests: int, metadata: Any) -> None:
    """Send so many requests, CONCURRENCY at a time; raises where one fails."""
    bodies = messages(8)
    tickets = iter(range(requests))
    call = channel.unary_unary(INFER.path)

    async def client(number: int) -> None:
        turns = itertools.cycle(bodies[number:] + bodies[:number])
        for _ in tickets:
            await call(next(turns), timeout=30, metadata=metadata)

    async with asyncio.TaskGroup() as clients:
        for number in range(CONCURRENCY):
            clients.create_task(client(number))


class Subject:
    """One sidecar under load; `samples` are its rounds, (CPU ms per request, requests per s)."""

    def __init__(self, child: Child, address: str, metadata: Any) -> None:
        self.samples: list[tuple[float, float]] = []
        self._child = child
        self._metadata = metadata
        self._channel = grpc.aio.insecure_channel(address)

    async def measure(self, requests: int, *, keep: bool = True) -> None:
        """One round."""
        cpu, started = cpu_s(self._child.pid), time.monotonic()
        await drive(self._channel, requests, self._metadata)
        took_s = time.monotonic() - started
        if keep:
            used_ms = 1000 * (cpu_s(self._child.pid) - cpu)
            self.samples.append((used_ms / requests, requests / took_s))

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()


def parts(report: Report, repeats: int) -> None:
    """What the hooks cost in one thread by themselves, least of the repeats.

    Free of the machine's other work, and without what they push out of the processor's caches.
    """
    nowhere = f"http://127.0.0.1:{free_port()}"
    cases = {OFF: None, "not recorded": 0.0, "recorded": 1.0}
    for name, ratio in cases.items():
        tracing = None
        if ratio is not None:
            section = {"endpoint": nowhere, "sample_ratio": ratio, "max_per_second": 10_000}
            tracing = Tracing(settings.Tracing.model_validate(section), lambda count: None)
        for caller, metadata in (("no context", None), ("not sampled", CONTEXT)):
            if caller == "not sampled" and name == "recorded":
                continue
            least = min(_hooks(tracing, metadata) for _ in range(repeats))
            report.add(hooks=name, caller=caller, us_per_request=round(1e6 * least, 2))
        if tracing is not None:
            asyncio.run(tracing.close())


def _hooks(tracing: Tracing | None, metadata: Any, requests: int = 500) -> float:
    """Seconds that the hooks of one pass-through request take."""
    started = time.perf_counter()
    for _ in range(requests):
        flow = Flow("r", time.monotonic(), None, "p")
        along = metadata if tracing is None else tracing.begin(flow, INFER, metadata)
        if flow.trace is not None:
            flow.trace.stage("read", flow.arrival_s)
        with flow.calling("upstream", along):
            pass
        if flow.trace is not None:
            flow.trace.finish(flow)
    return (time.perf_counter() - started) / requests


def start(config: Path, checkout: Path | None) -> tuple[Child, str]:
    """A sidecar, of another checkout where that is asked for."""
    lines = dict(line.split(": ", 1) for line in config.read_text().splitlines() if ": " in line)
    address = lines["listen"].strip("'")
    environment = {} if checkout is None else {"PYTHONPATH": str(checkout)}
    command = [BREAKWATER, "serve", "--config", str(config)]
    port = int(address.rpartition(":")[2])
    child = Child(
        config.stem,
        command,
        log=config.with_suffix(".log"),
        is_ready=lambda: accepts(port),
        environment=environment,
        stop_by=signal.SIGINT,  # nobody is to be waited for
    )
    return child, address


def start_all(
    stack: ExitStack, folder: Path, upstream: str, before: Path | None
) -> dict[tuple[str, str], tuple[Child, str, Any]]:
    """Every case, by name and by what the caller sends."""
    port = free_port()
    collector = Child(
        "collector",
        [sys.executable, "-m", "loadtests.tracing_cost", "--collector", str(port)],
        log=folder / "collector.log",
        is_ready=lambda: accepts(port),
    )
    stack.callback(collector.stop)
    cases = CASES if before is None else {BEFORE: {}, **CASES}
    found = {}
    for number, (name, tracing) in enumerate(cases.items()):
        section = {"tracing": {"endpoint": f"http://127.0.0.1:{port}", **tracing}}
        path = folder / f"case{number}.yaml"
        config = write_config(path, upstream, {}, **(section if tracing else {}))
        child, address = start(config, before if name == BEFORE else None)
        stack.callback(child.stop)
        found[name, "no context"] = (child, address, None)
        if name in (BEFORE, OFF, "1 %"):
            found[name, "not sampled"] = (child, address, CONTEXT)
    return found


async def measure_all(
    cases: dict[tuple[str, str], tuple[Child, str, Any]], rounds: int, requests: int
) -> dict[tuple[str, str], Subject]:
    """Rounds of all cases in turn, in the other order every second time."""
    subjects = {key: Subject(*case) for key, case in cases.items()}
    for subject in subjects.values():
        await subject.measure(requests, keep=False)
    for number in range(rounds):
        order = list(subjects.values())
        for subject in order if number % 2 else reversed(order):
            await subject.measure(requests)
    for subject in subjects.values():
        await subject.close()
    return subjects


def summarise(subjects: dict[tuple[str, str], Subject]) -> Report:
    """Medians over rounds, and of each round's difference to the sidecar without tracing."""
    report = Report("Tracing")
    for (name, caller), subject in subjects.items():
        base = subjects[OFF, caller]
        pairs = zip(subject.samples, base.samples, strict=True)
        added = sorted(1000 * (ours[0] - theirs[0]) for ours, theirs in pairs)
        report.add(
            tracing=name,
            caller=caller,
            proxy_cpu_ms=round(median([cpu for cpu, _ in subject.samples]), 4),
            added_us=round(median(added), 1),
            added_us_quartiles=f"{added[len(added) // 4]:.1f} to {added[-1 - len(added) // 4]:.1f}",
            throughput_per_s=round(median([rate for _, rate in subject.samples])),
        )
    return report


def main() -> int:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--collector", type=int, metavar="PORT", help="take spans, nothing else")
    chosen = parser.parse_args()
    if chosen.collector:
        asyncio.run(collect(chosen.collector))
        return 0
    warn_if_busy()
    keep_large_buffers()
    rounds = QUICK_ROUNDS if chosen.quick else ROUNDS
    requests = QUICK_REQUESTS if chosen.quick else REQUESTS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="breakwater-trace-")))
        triton = stack.enter_context(EmbeddedTriton(MODELS))
        cases = start_all(stack, folder, triton.grpc_address, chosen.before)
        subjects = uvloop.run(measure_all(cases, rounds, requests))
    report = summarise(subjects)
    parts(report, rounds)
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
