"""What `history` costs a request before its store is asked, and with it: one thread, one image.

`fingerprint` is on the device's thread; `observe` (look up, link, remember) on the event loop.
"""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np
import torch
from torch import Tensor

from loadtests.harness import Report, options, warn_if_busy
from proxy import config
from proxy.history.fingerprints import Fingerprinter
from proxy.history.history import History
from proxy.metrics import Metrics

SIDES = (32, 224)
ROUNDS = 200


async def _times_ms(images: Tensor) -> dict[str, list[float]]:
    history = History(config.History(), Metrics())
    salts = history.salts
    fingerprint = Fingerprinter(salts.steady("m"), lambda: salts.of("m"))
    calm, policy = torch.zeros(1), config.QueryAttacks()
    times: dict[str, list[float]] = {"fingerprint": [], "observe": []}
    for image in images:
        started = time.perf_counter()
        prints = fingerprint(image[None], calm)
        between = time.perf_counter()
        await history.observe("m", "p", prints, policy)
        times["fingerprint"].append((between - started) * 1e3)
        times["observe"].append((time.perf_counter() - between) * 1e3)
    return times


def main() -> int:
    """Print and write the rows."""
    chosen = options(__doc__).parse_args()
    warn_if_busy()
    torch.set_num_threads(1)
    report = Report("History, milliseconds an image")
    for side in SIDES:
        generator = torch.Generator().manual_seed(0)
        strangers = torch.rand(ROUNDS, 3, side, side, generator=generator)
        near = strangers[:1] + torch.randn(strangers.shape, generator=generator) * 0.01
        for what, images in (("strangers", strangers), ("near copies", near.clamp(0, 1))):
            for step, each in asyncio.run(_times_ms(images)).items():
                late = np.array(each[ROUNDS // 10 :])
                p50, p99 = np.quantile(late, [0.5, 0.99])
                report.add(
                    side=side, images=what, step=step, p50_ms=round(p50, 3), p99_ms=round(p99, 3)
                )
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
