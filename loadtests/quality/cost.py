"""What each part costs on this processor, one thread, by image size and batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor

import detectors
import purifiers
from detectors.base import Evidence, peer_key
from loadtests.harness import Report
from proxy.weights import users

_SIDES = (32, 224)
_BATCHES = (1, 32)
_TIMES = 3
_FIT = 60


def report_costs(
    parts: Mapping[str, tuple[str, dict[str, object]]],
    cleaners: Mapping[str, dict[str, object]],
    report: Report,
    progress: Progress,
) -> None:
    """One row for each part and image size: CPU milliseconds an image at batch 1 and 32.

    Scores only: making the views of a detector is the cost of its purifiers, and asking the model
    about them is counted as queries.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    task = progress.add_task("timing", total=len(_SIDES) * (len(parts) + len(cleaners)))
    for side in _SIDES:
        x = _images(_FIT, side)
        for label, (name, params) in parts.items():
            part = detectors.build(name, params)
            _equip(part, side)
            part.prepare(x)
            fit = _evidence(part, x)
            part.fit({"clean": fit, "other": fit})
            row = _times(lambda some, part=part: part.score(_evidence(part, some)), x)
            queries = len(part.views) + len(part.peers)
            report.add(part=label, kind="detector", side=side, queries=queries, **row)
            progress.advance(task)
        for name, params in cleaners.items():
            cleaner = purifiers.build(name, params)
            _equip(cleaner, side)
            report.add(
                part=name, kind="purifier", side=side, queries=1, **_times(cleaner.purify, x)
            )
            progress.advance(task)
    torch.set_num_threads(threads)


def _images(count: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(side, side), mode="bilinear")
    return (smooth + 0.01 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def _equip(part: detectors.Detector | purifiers.Purifier, side: int) -> None:
    """Untrained networks cost as much as trained ones."""
    for learned in users([part]).values():
        network = learned[0].recipe.build((3, side, side), 10).eval().requires_grad_(False)
        for each in learned:
            each.use(network)


def _evidence(part: detectors.Detector, x: Tensor) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    keys = [*(view.key for view in part.views), *(peer_key(peer) for peer in part.peers)]
    answers = {key: 4 * torch.randn(len(x), 10, generator=generator) for key in keys}
    return Evidence(x, 4 * torch.randn(len(x), 10, generator=generator), answers)


def _times(run: Callable[[Tensor], object], x: Tensor) -> dict[str, float]:
    row = {}
    for batch in _BATCHES:
        some = x[:batch]
        run(some)
        taken = []
        for _ in range(_TIMES):
            started = time.process_time()
            run(some)
            taken.append(time.process_time() - started)
        row[f"ms_{batch}"] = round(1000 * min(taken) / batch, 3)
    return row
