"""Attacks by queries on a live sidecar before a real Triton: seen when, and does any get through?

ResNet-20 on CIFAR-10, `breakwater calibrate` on 1,200 test images, sidecars as processes of their
own; every attack has images nobody attacked before, every run a principal of its own. Sections:

detect    attackers who do not adapt, refused: at which query, and how many succeed
decoy     the same, answered by decoys and never told
adaptive  attackers who tune their steps to stay unseen; silent, fleeing, and refused
blinded   attackers who change every query at random
sybils    every query sent by another principal
replicas  three sidecars that share one Redis, asked in turn, and one alone
false     alarms that ordinary traffic raises: independent images, and 49 kinds of sequences
memory    what remembering a query costs, in process and in Redis

Needs a folder with `cifar10/train.npz`, `test.npz` and `resnet20.pt` (see `loadtests.cifar`) and
Debian's redis-server. Alone on two cores about 35 minutes, with --quick 5 to 7.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from loadtests.harness import Report, options, warn_if_busy
from loadtests.query_attacks import costs, ordinary, picture, searches
from loadtests.query_attacks.scene import Scene
from loadtests.query_attacks.stage import FULL, QUICK, Stage
from loadtests.query_attacks.victim import cifar

TITLE = "Query attacks on ResNet-20, CIFAR-10"
SECTIONS: Mapping[str, Callable[[Stage], None]] = {
    "detect": searches.detect,
    "false": ordinary.benign_traffic,
    "replicas": searches.spread,
    "sybils": searches.from_sybils,
    "blinded": searches.blinded,
    "adaptive": searches.adaptively,
    "decoy": searches.decoy,
}
RUNS = ("runs", "decoyed", "adaptive", "blinded", "sybils", "replicas")
"""Sizes that --runs sets."""
MEMORY = "memory"
"""The section that needs no model."""


def main() -> int:
    """Run the study; 1 when a goal was missed or a section failed."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder")
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS, MEMORY], help="these sections")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of every attack")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the detections (PNG)")
    chosen = parser.parse_args()
    warn_if_busy()
    # Ended from outside, it still stops Triton and the sidecars.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    torch.set_num_threads(1)  # as many as the model has in Triton
    sizes = QUICK if chosen.quick else FULL
    if chosen.runs is not None:
        counts = dict.fromkeys(RUNS, chosen.runs)
        sizes = replace(sizes, **counts)
    names = [name for name in (*SECTIONS, MEMORY) if name in (chosen.only or (*SECTIONS, MEMORY))]
    report = Report(TITLE)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        if names != [MEMORY]:
            with tempfile.TemporaryDirectory(prefix="query-attacks-") as folder:
                victim = cifar(chosen.data)
                with Scene(Path(folder), victim) as scene:
                    stage = Stage(scene, sizes, report, progress)
                    stage.set_up()
                    for name in names:
                        if name != MEMORY:
                            _section(name, partial(SECTIONS[name], stage), report, chosen.json)
        if MEMORY in names:  # last, with nothing else running
            measure = partial(costs.measure, report, is_quick=chosen.quick)
            _section(MEMORY, measure, report, chosen.json)
    if chosen.picture is not None:
        picture.draw(report.rows, chosen.picture)
    return report.finish(chosen.json)


def _section(name: str, run: Callable[[], None], report: Report, file: Path | None) -> None:
    """Run one section and write what there is; one that fails does not take the others along."""
    started = time.monotonic()
    try:
        run()
    except Exception as error:  # noqa: BLE001 (whatever it is, the other sections took an hour)
        traceback.print_exc()
        report.add(section=name, failed=f"{type(error).__name__}: {error}", met=False)
    report.add(section=name, seconds=round(time.monotonic() - started))
    if file is not None:
        report.write(file)


if __name__ == "__main__":
    sys.exit(main())
