"""The tuning loop on CIFAR-10 with ResNet-20 in a real Triton: evaluate, tune, and keep promises.

Calibrates on test images, runs `breakwater evaluate` and `breakwater tune` as a user would, each in
a process of its own, and compares what the recommended policy promised with what it does on images
nobody had seen. `--data` is a folder as in `loadtests.cifar`.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from loadtests.harness import CHECKOUT, Report, free_port, options, warn_if_busy
from loadtests.query_attacks.victim import Victim, cifar
from loadtests.sidecar import BREAKWATER
from tuning.triton import EmbeddedTriton

DETECTORS = ("srm", "high_frequency", "jpeg_view", "mirror_view")
FULL_MINUTES, QUICK_MINUTES, SEARCH_S = 25, 3, 120
BUDGET_MS, FPR = 50, 0.02
"""What `tune` may spend: much latency, since this machine shares two cores with the load."""


class Loop:
    """The files and commands of one run.

    Args:
        folder: for everything written; the next run goes on from what is there.
        victim: what is defended.
        upstream: Triton's address.
    """

    def __init__(self, folder: Path, victim: Victim, upstream: str) -> None:
        self._folder, self._victim, self._upstream = folder, victim, upstream
        self.config = folder / "breakwater.yaml"
        self._data = folder / "evaluation.npz"
        self._copy = folder / "copy.pt"

    def set_up(self) -> None:
        """Write configuration, data and the copy of the model, and calibrate."""
        x, y = self._victim.attacked
        np.savez(self._data, x=_bytes(x.numpy()), y=y.numpy())
        np.savez(self._folder / "benign.npz", x=_bytes(self._victim.calibration.numpy()))
        self._victim.traced.save(str(self._copy))
        self.config.write_text(yaml.safe_dump(self._document(), sort_keys=False))
        self.run("calibrate", "--data", str(self._folder / "benign.npz"))

    def run(self, command: str, *arguments: str) -> float:
        """Run a subcommand on the model; returns the minutes it took.

        Raises:
            RuntimeError: it failed; the text is its own.
        """
        started = time.monotonic()
        ran = subprocess.run(
            [
                *(BREAKWATER, command, "--config", str(self.config)),
                *("--model", self._victim.name, *arguments),
            ],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
        )
        (self._folder / f"{command}.log").write_text(ran.stdout + ran.stderr)
        if ran.returncode != 0:
            raise RuntimeError(f"breakwater {command}: {(ran.stdout + ran.stderr)[-3000:]}")
        return (time.monotonic() - started) / 60

    def evaluate(self, name: str, *arguments: str) -> tuple[float, dict[str, Any]]:
        """Minutes, and the report."""
        out = self._folder / name
        minutes = self.run("evaluate", *self._inputs(out), *arguments)
        return minutes, json.loads((out / "report.json").read_text())

    def tune(self, evaluation: str, *arguments: str) -> tuple[float, dict[str, Any]]:
        """Minutes, and what `tune` wrote."""
        out = self._folder / "tuned"
        given = ["--evaluation", str(self._folder / evaluation), "--compare", str(self.config)]
        given += ["--budget-ms", str(BUDGET_MS), "--max-fpr", str(FPR), *arguments]
        minutes = self.run("tune", *self._inputs(out), *given)
        return minutes, json.loads((out / "tune.json").read_text())

    def _inputs(self, out: Path) -> list[str]:
        return ["--data", str(self._data), "--model-file", str(self._copy), "--out", str(out)]

    def _document(self) -> dict[str, Any]:
        return {
            "listen": f"127.0.0.1:{free_port()}",
            "upstream": self._upstream,
            "admin": f"127.0.0.1:{free_port()}",
            "audit": {"path": "audit.jsonl"},
            "models": {
                self._victim.name: {
                    "inputs": [{"name": "image", "layout": "NCHW", "range": [0, 1]}],
                    "output": {"name": "logits", "kind": "logits"},
                    "calibration": "calibration",
                    "mode": "enforce",
                    "action": "purify",
                    "budget_ms": 1000,
                    "detectors": [{"name": name} for name in DETECTORS],
                    "purifiers": [{"name": "jpeg", "params": {"quality": 75}}],
                }
            },
        }


def _bytes(pixels: Any) -> Any:
    """Pixels in [0, 1] as they lie in an image file."""
    return np.round(pixels * 255).astype(np.uint8)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the loop; 1 when a goal is missed."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="with cifar10/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="working folder")
    chosen = parser.parse_args(argv)
    warn_if_busy()
    folder = chosen.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    victim = cifar(chosen.data)
    models = folder / "models"
    if not models.exists():
        victim.write_repository(models)
    report = Report("Tuning loop")
    with EmbeddedTriton(models, log=folder / "triton.log") as triton:
        loop = Loop(folder, victim, triton.grpc_address)
        loop.set_up()
        _measure(loop, report, quick=chosen.quick)
    return report.finish(chosen.json)


def _measure(loop: Loop, report: Report, *, quick: bool) -> None:
    minutes, found = loop.evaluate("quick", "--quick")
    report.figure("evaluate --quick, minutes", minutes, f"<= {QUICK_MINUTES}")
    if not quick:
        minutes, found = loop.evaluate("evaluation")
        report.figure("evaluate, minutes", minutes, f"<= {FULL_MINUTES}")
    for row in found["rows"]:
        if row.get("kind") == "summary":
            report.add(section="evaluate", **row)
    minutes, tuned = loop.tune("quick" if quick else "evaluation")
    report.figure("tune: the search, seconds", tuned["search_s"], f"<= {SEARCH_S}")
    chosen = tuned["recommended"][0]
    report.add(section="tune", minutes=round(minutes, 2), policy=chosen["policy"])
    report.rows.extend({"section": "tune", **row} for row in tuned["promises"])


if __name__ == "__main__":
    raise SystemExit(main())
