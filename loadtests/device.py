"""What the way to the device costs: tensors in and out, the hop to its thread, the first request.

Everything runs in this process on the CPU with one thread. Copies are timed beside the plain way,
`torch.frombuffer` on a copy and `tobytes`, in turns, so that a disturbance hits both; the figures
are medians.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import uvloop

from loadtests.harness import CHECKOUT, Report, median, options, warn_if_busy

if TYPE_CHECKING:
    import torch

    from proxy.adapt import ModelSpec

Ends = tuple[tuple[float, ...], tuple[float, ...]]

_US = 1e6
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FIRST = """
import sys, time
import torch
from purifiers import build
torch.set_num_threads(1)
purifier = build("median")
def request(size):
    x = torch.rand(size, 3, int(sys.argv[1]), int(sys.argv[1]))
    started = time.perf_counter()
    purifier.purify(x)
    return time.perf_counter() - started
if sys.argv[2] == "warm":
    import threading
    other = threading.Thread(target=lambda: [request(size) for size in (1, 8)])
    other.start(); other.join()
print(request(1), min(request(1) for _ in range(20)))
"""


def main() -> int:
    """Measure and report; the status says whether a goal was missed."""
    arguments = options(__doc__).parse_args()
    warn_if_busy()
    rounds = 40 if arguments.quick else 300
    report = Report("The way to the device")
    _copies(report, rounds)
    uvloop.run(_hops(report, rounds * 5))
    _first_requests(report, 3 if arguments.quick else 7)
    return report.finish(arguments.json)


def _interleaved(rounds: int, *subjects: Callable[[], object]) -> tuple[float, ...]:
    """Median microseconds of each, taken in turns."""
    taken: list[list[float]] = [[] for _ in subjects]
    for _ in range(rounds):
        for subject, times in zip(subjects, taken, strict=True):
            started = time.perf_counter()
            subject()
            times.append((time.perf_counter() - started) * _US)
    return tuple(median(times) for times in taken)


def _copies(report: Report, rounds: int) -> None:
    import torch

    from proxy.tensors import PixelCodec

    torch.set_num_threads(1)
    for size, spec in _specs():
        x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        codec = PixelCodec(spec)
        raw = bytes(codec.encode(x))
        # As in a message: read-only, and not where its datatype would like it.
        data = memoryview(bytes(3) + raw)[3:]
        shape = codec.wire_shape(x)
        decode, plain_decode, encode, plain_encode = _interleaved(
            rounds,
            lambda: codec.decode(data, shape),  # noqa: B023 (called at once)
            lambda: plain_read(spec, data, shape),  # noqa: B023
            lambda: codec.encode(x),  # noqa: B023
            lambda: plain_write(spec, x),  # noqa: B023
        )
        report.add(
            tensor=f"{spec.datatype} {spec.layout} 3x{size}x{size}",
            scale="mean/std" if len(spec.low) > 1 else "range",
            decode_us=round(decode, 1),
            plain_decode_us=round(plain_decode, 1),
            encode_us=round(encode, 1),
            plain_encode_us=round(plain_encode, 1),
        )


def _specs() -> Iterator[tuple[int, ModelSpec]]:
    from proxy.adapt import ModelSpec

    normed: Ends = (
        tuple(-m / s for m, s in zip(_MEAN, _STD, strict=True)),
        tuple((1 - m) / s for m, s in zip(_MEAN, _STD, strict=True)),
    )
    unit: Ends = ((0.0,), (1.0,))
    byte: Ends = ((0.0,), (255.0,))
    scales: dict[str, list[Ends]] = {"FP32": [unit, normed], "UINT8": [byte]}
    for size in (32, 224):
        for datatype, ends in scales.items():
            for layout in ("NCHW", "NHWC"):
                for low, high in ends:
                    yield (
                        size,
                        ModelSpec(
                            model="m",
                            input="image",
                            datatype=datatype,
                            layout="NCHW" if layout == "NCHW" else "NHWC",
                            shape=(-1, -1, -1, -1),
                            low=low,
                            high=high,
                            tolerance=0.02,
                            encoded=False,
                            size=None,
                            max_pixels=1 << 20,
                            ignored_inputs=(),
                            output=None,
                            output_kind="none",
                            batch_limit=64,
                            max_batch=None,
                            stateful=False,
                            may_be_stateful=False,
                            decoupled=False,
                            versions=("1",),
                        ),
                    )


def plain_read(spec: ModelSpec, data: memoryview, shape: tuple[int, ...]) -> torch.Tensor:
    """Copy, convert, scale, check and clamp, each by an operation of torch's own."""
    import torch

    dtype = torch.float32 if spec.datatype == "FP32" else torch.uint8
    x = torch.frombuffer(bytearray(data), dtype=dtype).view(shape)
    x = (x if spec.layout == "NCHW" else x.permute(0, 3, 1, 2)).to(torch.float32)
    if (spec.low, spec.high) != ((0.0,), (1.0,)):
        low = torch.tensor(spec.low).view(1, -1, 1, 1)
        x = (x - low) / (torch.tensor(spec.high).view(1, -1, 1, 1) - low)
    _ = x.amin().item(), x.amax().item()
    return x.clamp_(0.0, 1.0)


def plain_write(spec: ModelSpec, x: torch.Tensor) -> bytes:
    """The way back, likewise."""
    import torch

    if (spec.low, spec.high) != ((0.0,), (1.0,)):
        low = torch.tensor(spec.low).view(1, -1, 1, 1)
        x = x * (torch.tensor(spec.high).view(1, -1, 1, 1) - low) + low
    x = x if spec.layout == "NCHW" else x.permute(0, 2, 3, 1)
    if spec.datatype == "UINT8":
        x = x.round().clamp(0, 255).to(torch.uint8)
    return x.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _nothing(items: Sequence[None]) -> list[None]:
    return list(items)


async def _hops(report: Report, rounds: int) -> None:
    """One entry to the device thread and back, with nothing to do there."""
    from proxy.batcher import Batcher

    batcher = Batcher(
        max_batch=32,
        window_s=0.0002,
        capacity=256,
        company=lambda: 1,
        on_batch=lambda samples, waiting: None,
    )
    for idle_s in (0.0, 0.003):
        times = []
        for _ in range(rounds if not idle_s else rounds // 5):
            await asyncio.sleep(idle_s)
            started = time.perf_counter()
            await batcher.submit("k", None, _nothing, budget_s=1.0)
            times.append((time.perf_counter() - started) * _US)
        times.sort()
        report.add(
            hop=f"after {idle_s * 1000:g} ms of rest",
            p50_us=round(median(times), 1),
            p99_us=round(times[int(len(times) * 0.99)], 1),
        )
    await batcher.close()


def _first_requests(report: Report, rounds: int) -> None:
    """The first pass of a process, with and without one like it before on another thread."""
    for size in (32, 224):
        rows: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
        for _ in range(rounds):
            for kind, found in rows.items():
                told = subprocess.run(
                    [sys.executable, "-c", _FIRST, str(size), kind],
                    cwd=CHECKOUT,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                first, later = map(float, told.stdout.split())
                found.append((first * 1000, later * 1000))
        report.add(
            first_pass=f"median 3x3 on 3x{size}x{size}",
            cold_ms=round(median([first for first, _ in rows["cold"]]), 3),
            warmed_up_ms=round(median([first for first, _ in rows["warm"]]), 3),
            later_ms=round(median([later for _, later in rows["warm"]]), 3),
        )


if __name__ == "__main__":
    sys.exit(main())
