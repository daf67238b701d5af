"""What scoring costs an image: each input-only detector, several that share their maps, a verdict.

One thread of the CPU, CPU time, medians of interleaved rounds; detectors fitted on 11 groups of
noisy smooth images, every pass on other images than the one before. On a GPU also against the
memory's bandwidth: the time to read the batch once.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor

import detectors
from detectors.base import Detector, Evidence
from detectors.calibration import Calibration
from loadtests.harness import Report, median, options, warn_if_busy
from proxy.allocator import keep_large_buffers
from proxy.config import Model
from proxy.rules import Rules
from proxy.weights import users

STATISTICS = ("residual", "chroma", "high_frequency", "flat_noise", "srm", "patch")
LEARNED = ("denoiser_residual", "residual_cnn")
PAIR = ("srm", "high_frequency")
ALL = "all statistics"
SETS: Mapping[str, tuple[str, ...]] = {
    ALL: STATISTICS,
    "srm+high_frequency": PAIR,
    **{name: (name,) for name in (*STATISTICS, *LEARNED)},
}
GOALS_MS = {(224, 1): 3.0, (224, 32): 2.0, (32, 1): 0.3, (32, 32): 0.05}
"""Milliseconds an image for all statistics together, by side and batch."""
_JUDGE_MS = 0.12
_GROUPS = 11
_BATCHES_ON_GPU = (1, 8, 32, 128)
_ROUNDS, _QUICK_ROUNDS = 41, 9

Run = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 when a goal was missed."""
    given = options(__doc__).parse_args(arguments)
    warn_if_busy()
    keep_large_buffers()
    torch.set_num_threads(1)
    rounds = _QUICK_ROUNDS if given.quick else _ROUNDS
    report = Report("Scoring cost, one CPU thread, ms an image")
    fitted = {name: _fitted(name) for name in (*STATISTICS, *LEARNED)}
    for side in (32, 224):
        _on_cpu(report, fitted, side, rounds)
    _judging(report, fitted, rounds)
    if torch.cuda.is_available():
        _on_gpu(report, fitted, rounds)
    else:
        report.add(figure="GPU against its memory bandwidth", note="skipped: no CUDA device")
    return report.finish(given.json)


def _on_cpu(report: Report, fitted: Mapping[str, Detector], side: int, rounds: int) -> None:
    cost: dict[tuple[str, int], float] = {}
    for batch in (1, 32):
        runs = {
            label: _scoring([fitted[name] for name in names], _batches(side, batch))
            for label, names in SETS.items()
        }
        taken = _cpu_ms(runs, rounds if batch * side < 5000 else max(5, rounds // 4))
        cost |= {(label, batch): ms / batch for label, ms in taken.items()}
    for label in SETS:
        ms = {f"batch_{batch}": round(cost[label, batch], 4) for batch in (1, 32)}
        report.add(detectors=label, side=side, **ms)
    for batch in (1, 32):
        goal = f"<= {GOALS_MS[side, batch]}"
        report.figure("ms an image, all statistics", cost[ALL, batch], goal, side=side, batch=batch)
    if side == 32:
        share = cost[ALL, 32] / cost[ALL, 1]
        report.figure("batch 32 against batch 1, an image", share, "<= 0.2", side=side, batch=32)


def _judging(report: Report, fitted: Mapping[str, Detector], rounds: int) -> None:
    """What is left once the model has answered: tier 1, the fused score, p-values, the verdict."""
    answered = {name: detectors.build(name) for name in ("margin", "energy")}
    parts = [*(fitted[name] for name in PAIR), *answered.values()]
    generator = torch.Generator().manual_seed(5)

    def scores(count: int) -> dict[str, Tensor]:
        return {part.name: torch.randn(count, generator=generator) for part in parts}

    calibration = Calibration.fit({f"group {g}": scores(2000) for g in range(_GROUPS)})
    model = Model.model_validate(
        {"calibration": "here", "detectors": [{"name": part.name} for part in parts]}
    )
    rules = Rules("model", model, calibration, parts)
    for batch in (1, 32):
        early = {name: value for name, value in scores(batch).items() if name in PAIR}
        evidence = Evidence(torch.zeros(batch, 3, 32, 32), torch.randn(batch, 10))

        def judge(early: dict[str, Tensor] = early, evidence: Evidence = evidence) -> object:
            late = {name: part.score(evidence) for name, part in answered.items()}
            return rules.judge(early | late)

        ms = _cpu_ms({"judge": judge}, 10 * rounds)["judge"]
        where = "ms a batch: srm, high_frequency, margin, energy"
        if batch == 1:
            report.figure(f"judge, {where}", ms, f"<= {_JUDGE_MS}", side=32, batch=batch)
        else:
            report.add(figure=f"judge, {where}", side=32, batch=batch, value=round(ms, 3))


def _on_gpu(report: Report, fitted: Mapping[str, Detector], rounds: int) -> None:
    cuda = torch.device("cuda")
    bytes_per_ms = _copy_bytes_per_ms(cuda)
    report.add(figure="copy bandwidth, GB/s", value=round(bytes_per_ms / 1e6, 1))
    moved = {}
    for name, part in fitted.items():
        moved[name] = _equipped(name, cuda)
        moved[name].load_state(part.state(), cuda)
    for side in (32, 224):
        for batch in _BATCHES_ON_GPU:
            batches = [x.to(cuda) for x in _batches(side, batch)]
            limit = batches[0].numel() * 4 / bytes_per_ms
            for label, names in SETS.items():
                ms = _gpu_ms(_scoring([moved[name] for name in names], batches), rounds)
                report.add(
                    device=torch.cuda.get_device_name(),
                    detectors=label,
                    side=side,
                    batch=batch,
                    ms_an_image=round(ms / batch, 5),
                    times_reading_once=round(ms / limit, 1),
                )


def _scoring(parts: Sequence[Detector], batches: Sequence[Tensor]) -> Run:
    order = cycle(batches)

    def run() -> None:
        evidence = Evidence(next(order))
        for part in parts:
            part.score(evidence)

    return run


def _cpu_ms(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each, all threads counted."""
    taken: dict[str, list[float]] = {label: [] for label in runs}
    for turn in range(rounds + 2):
        for label, run in runs.items():
            started = time.process_time()
            run()
            if turn >= 2:  # the first ones allocate
                taken[label].append(1000 * (time.process_time() - started))
    return {label: median(values) for label, values in taken.items()}


def _gpu_ms(run: Run, rounds: int) -> float:
    """Median milliseconds on the device between two events, the starting of kernels included."""
    taken = []
    for turn in range(rounds + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        if turn >= 5:
            taken.append(start.elapsed_time(end))
    return median(taken)


def _copy_bytes_per_ms(device: torch.device) -> float:
    source = torch.empty(2**28, device=device)  # 1 GiB
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / _gpu_ms(lambda: target.copy_(source), 11)


def _fitted(name: str) -> Detector:
    part = _equipped(name, torch.device("cpu"))
    x = _images(60, 32, 1)
    generator = torch.Generator().manual_seed(2)
    noise = [0.002 * g * torch.randn(x.shape, generator=generator) for g in range(_GROUPS)]
    part.fit({f"group {g}": Evidence((x + each).clamp(0, 1)) for g, each in enumerate(noise)})
    return part


def _equipped(name: str, device: torch.device) -> Detector:
    """Untrained networks cost as much as trained ones."""
    part = detectors.build(name)
    for learned in users([part]).values():
        network = learned[0].recipe.build((3, 32, 32), 10).eval().requires_grad_(False)
        for each in learned:
            each.use(network.to(device))
    return part


def _batches(side: int, batch: int) -> list[Tensor]:
    """As many other batches as keep the processor from learning the branches of one by heart."""
    count = max(2, math.ceil(16 / batch))
    return list(_parts(_images(count * batch, side, 3), batch))


def _parts(x: Tensor, batch: int) -> Iterator[Tensor]:
    for part in x.split(batch):
        yield part.clone()


def _images(count: int, side: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(side, side), mode="bilinear")
    return (smooth + 0.01 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


if __name__ == "__main__":
    sys.exit(main())
