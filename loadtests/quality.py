"""What is caught, and what is flagged wrongly: detection and purification on CIFAR-10.

The default detectors are fitted and calibrated on benign images and their variations, exactly as
`breakwater calibrate` does, then meet attacks none of them was fitted on, and fresh benign images.
The model is called directly: this measures the maths, not the proxy.

Needs a folder with `cifar10/train.npz` and `cifar10/test.npz` (arrays `jpeg`: all files in a row,
`offset` and `label`) and `cifar10/resnet20.pt`, the state of the network in `loadtests.cifar`. On
two cores: 5 to 7 minutes, with --quick 2 to 3 (OMP_NUM_THREADS=1 where the cores are shared).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

import detectors
import purifiers
from detectors.base import Detector, Evidence, Need
from detectors.benign import CLEAN, variations
from detectors.binomial import lower_bound, upper_bound
from detectors.calibration import Calibration
from loadtests.attacks import ATTACKS, attacked
from loadtests.cifar import ResNet, load_images, load_model
from loadtests.harness import Report, Row, options

DETECTORS = ("residual", "margin", "energy", "feature_squeezing")
PURIFIERS: tuple[tuple[str, dict[str, int]], ...] = (
    ("bit_depth", {"bits": 4}),
    ("median", {"size": 2}),
    ("median", {"size": 3}),
    ("jpeg", {"quality": 75}),
    ("jpeg", {"quality": 50}),
)
RATES = (0.01, 0.05)
GOALS = {"pgd4": ">= 0.9", "pgd8": ">= 0.95", "deepfool": ">= 0.35"}
"""Least share detected with all evidence at 1 %, on attacks the first set is chosen for."""


@dataclass(frozen=True)
class Sizes:
    """How many images each step uses."""

    fit: int
    calibrate: int
    benign: int
    attack: int


FULL = Sizes(fit=400, calibrate=800, benign=500, attack=100)
QUICK = Sizes(fit=150, calibrate=300, benign=150, attack=40)


def answers(model: ResNet, x: Tensor) -> Tensor:
    """Logits, (N, 10)."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in torch.split(x, 128)])


def evidence(model: ResNet, x: Tensor, parts: Sequence[Detector]) -> Evidence:
    """All evidence any of the detectors needs."""
    views = {view.key: view for part in parts for view in part.views}
    seen = {key: answers(model, view.purify(x)) for key, view in views.items()}
    return Evidence(x, answers(model, x), seen)


def scores(given: Evidence, parts: Sequence[Detector]) -> dict[str, Tensor]:
    """Scores of every detector."""
    return {part.name: part.score(given) for part in parts}


def levels(parts: Sequence[Detector]) -> dict[str, tuple[str, ...]]:
    """Evidence level -> the detectors that can be used with it."""
    order = list(Need)
    return {
        need.value: tuple(p.name for p in parts if order.index(p.needs) <= order.index(need))
        for need in order
    }


class Study:
    """One calibrated defence and what it meets.

    Args:
        folder: the data folder.
        sizes: how many images each step uses.
        progress: where to show progress.
    """

    def __init__(self, folder: Path, sizes: Sizes, progress: Progress) -> None:
        self._progress = progress
        self.model = load_model(folder)
        self.parts = [detectors.build(name) for name in DETECTORS]
        generator = torch.Generator().manual_seed(1)
        fit, _ = load_images(folder, "train", sizes.fit, seed=101)
        x, y = load_images(folder, "test", 5000)
        benign = self._evidence("fitting", variations(fit, generator))
        for part in self.parts:
            part.fit(benign)
        held = self._evidence("calibrating", variations(x[: sizes.calibrate], generator))
        benign_scores = {group: scores(given, self.parts) for group, given in held.items()}
        self.levels = levels(self.parts)
        self.calibration = Calibration.fit(benign_scores, list(self.levels.values()))
        fresh = x[sizes.calibrate : sizes.calibrate + sizes.benign]
        self.fresh = self._evidence("fresh benign images", variations(fresh, generator))
        self.labels = y[sizes.calibrate : sizes.calibrate + sizes.benign]
        self._attack_images(x[2000:], y[2000:], sizes.attack)

    def _attack_images(self, x: Tensor, y: Tensor, count: int) -> None:
        """Keep the first `count` correctly classified images, and attack them."""
        correct = answers(self.model, x[: 2 * count]).argmax(1) == y[: 2 * count]
        x, y = x[: 2 * count][correct][:count], y[: 2 * count][correct][:count]
        self.attacked: dict[str, tuple[Tensor, Tensor]] = {}
        self.tried = len(x)
        task = self._progress.add_task("attacking", total=len(ATTACKS))
        for name, attack in ATTACKS.items():
            made = attacked(attack, self.model, x, y)
            self.attacked[name] = made.x[made.fooled], made.y[made.fooled]
            self._progress.advance(task)

    def _evidence(self, title: str, groups: Mapping[str, Tensor]) -> dict[str, Evidence]:
        task = self._progress.add_task(title, total=len(groups))
        found = {}
        for group, x in groups.items():
            found[group] = evidence(self.model, x, self.parts)
            self._progress.advance(task)
        return found

    def flagged(self, given: Evidence, names: Sequence[str]) -> Row:
        """Shares flagged at each rate, with 95 % Clopper-Pearson intervals."""
        all_scores = scores(given, self.parts)
        fused = self.calibration.fuse({name: all_scores[name] for name in names})
        row: Row = {"samples": len(fused)}
        for rate in RATES:
            over = int((fused > self.calibration.threshold(names, rate).value).sum())
            column = f"at_{rate:g}"
            row[column] = round(over / max(1, len(fused)), 4)
            row[f"{column}_low"] = round(lower_bound(over, len(fused), 0.975), 4)
            row[f"{column}_high"] = round(upper_bound(over, len(fused), 0.975), 4)
        return row


def report_detection(study: Study, report: Report) -> None:
    """One row per attack and evidence level."""
    for attack, (x, _) in study.attacked.items():
        given = evidence(study.model, x, study.parts)
        for level, names in study.levels.items():
            row = study.flagged(given, names)
            report.add(attack=attack, tried=study.tried, evidence=level, **row)
            if attack in GOALS and level == Need.VIEWS:
                value = float(row["at_0.01"] or 0)
                report.figure("detected at 0.01", value, GOALS[attack], attack=attack)


def report_benign(study: Study, report: Report) -> None:
    """One row per benign group and evidence level; the mean over groups must hold the rate."""
    for level, names in study.levels.items():
        rows = {group: study.flagged(given, names) for group, given in study.fresh.items()}
        for group, row in rows.items():
            report.add(benign=group, evidence=level, **row)
        for rate in RATES:
            mean = sum(float(row[f"at_{rate:g}"] or 0) for row in rows.values()) / len(rows)
            report.figure("flagged, mean over benign groups", mean, f"<= {rate:g}", evidence=level)


def report_thresholds(study: Study, report: Report) -> None:
    """What the calibration itself promises."""
    for level, names in study.levels.items():
        for rate in RATES:
            promised = study.calibration.threshold(names, rate)
            report.add(
                evidence=level,
                wanted_fpr=rate,
                threshold=round(promised.value, 4),
                fpr_upper=round(promised.fpr_upper, 4),
                threshold_samples=promised.samples,
                worst_group=promised.worst_group,
            )


def report_purifiers(study: Study, report: Report) -> None:
    """Accuracy after each purifier: on fresh clean images and on each attack's successes."""
    sets = {CLEAN: (study.fresh[CLEAN].x, study.labels), **study.attacked}
    for purifier in (None, *(purifiers.build(name, params) for name, params in PURIFIERS)):
        row: Row = {}
        for name, (x, y) in sets.items():
            seen = answers(study.model, x if purifier is None else purifier.purify(x))
            row[name] = round(float((seen.argmax(1) == y).float().mean()), 4)
        report.add(purifier="none" if purifier is None else purifier.key, **row)


def main() -> int:
    """Run the study; 1 when a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder")
    chosen = parser.parse_args()
    with Progress(console=Console(stderr=True)) as progress:
        study = Study(chosen.data, QUICK if chosen.quick else FULL, progress)
    report = Report("Quality: shares, 95 % intervals")
    report_detection(study, report)
    report_benign(study, report)
    report_thresholds(study, report)
    report_purifiers(study, report)
    return report.finish(chosen.json)


if __name__ == "__main__":
    sys.exit(main())
