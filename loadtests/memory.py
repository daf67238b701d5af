"""Does Breakwater's memory grow with traffic? Resident size after 2,000 and after 20,000 requests.

600 KB requests, eight at a time, raw bytes from one connection through `breakwater serve` to a
real Triton. The whole process tree is counted.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from loadtests.harness import Report, options, resident_bytes
from loadtests.sidecar import MODELS, TENSORS, images, start_breakwater, write_config
from proxy.allocator import keep_large_buffers
from proxy.pb import open_inference_pb2 as oip
from tuning.triton import EmbeddedTriton

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
CONCURRENCY = 8
TENSOR = TENSORS[1]
WARM, LAST = 2_000, 20_000
QUICK_LAST = 8_000
GROWTH = "<= 1.1"


def messages(count: int) -> list[bytes]:
    """Serialised requests with different images, all of one size."""
    made = []
    for image in images(TENSOR.side, count):
        request = oip.ModelInferRequest(model_name=TENSOR.model)
        shape = (1, *image.shape)
        request.inputs.add(name="image", datatype="FP32", shape=shape)
        request.raw_input_contents.append((image.astype("<f4") / 255).tobytes())
        made.append(request.SerializeToString())
    return made


async def drive(address: str, requests: int, progress: Progress) -> float:
    """Send `requests` requests, CONCURRENCY at a time; return the seconds it took.

    Raises:
        grpc.aio.AioRpcError: a request failed; the run is worth nothing then.
    """
    task = progress.add_task("", total=requests)
    bodies = messages(8)
    tickets = iter(range(requests))
    started = time.monotonic()
    async with grpc.aio.insecure_channel(address) as channel:
        rpc = channel.unary_unary(MODEL_INFER)

        async def client(number: int) -> None:
            turns = itertools.cycle(bodies[number:] + bodies[:number])
            for _ in tickets:
                await rpc(next(turns), timeout=30)
                progress.advance(task)

        async with asyncio.TaskGroup() as clients:
            for number in range(CONCURRENCY):
                clients.create_task(client(number))
    return time.monotonic() - started


def main() -> int:
    """Run the benchmark; 1 when memory grew past the goal."""
    parser = options(__doc__)
    chosen = parser.parse_args()
    last = QUICK_LAST if chosen.quick else LAST
    keep_large_buffers()
    report = Report("Memory")
    sizes: list[int] = []
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="breakwater-memory-")))
        triton = stack.enter_context(EmbeddedTriton(MODELS))
        config = write_config(folder / "memory.yaml", triton.grpc_address, {})
        child, address = start_breakwater(config)
        stack.callback(child.stop)
        progress = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
        sent = 0
        for until in (WARM, last):
            took_s = uvloop.run(drive(address, until - sent, progress))
            sizes.append(resident_bytes(child.pid))
            report.add(
                requests=until,
                tensor=TENSOR.name,
                resident_mib=round(sizes[-1] / 2**20, 1),
                throughput_per_s=round((until - sent) / took_s, 1),
            )
            sent = until
    told = f"resident size after {last} requests / after {WARM}"
    report.figure(told, sizes[1] / sizes[0], GROWTH, tensor=TENSOR.name)
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
