"""Drift of a population: how often it is seen where there is none, and how soon where there is.

Signals of CIFAR-10 images are worked out once; windows of traffic are then drawn from them, each
time against a calibration on other images. The rate of false alarms is compared with that of a
Kolmogorov-Smirnov test which takes samples for independent.

Needs the data folder that `python -m loadtests.quality --help` describes. About 10 minutes on one
core, with --quick 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detectors.binomial import lower_bound, upper_bound
from detectors.drift_reference import CLASSES, VERDICT
from detectors.drift_sketch import Sketch, block_of
from detectors.drift_test import Finding, alarm, alpha_of, compare
from loadtests.drift_scene import KINDS, QUICK, Scene, Side, Sizes, scene_of, side_of
from loadtests.drift_traffic import GATEWAY, QUIET, WINDOW, Counts, Draw, Integers, Traffic, mixed
from loadtests.harness import Report, options

ALPHA = 0.01
"""Of the windows without drift at most so many may be found to drift, before the least distance."""
OPERATING = alpha_of(30 * 24 * 2)
"""A false alarm in 30 days of a window each half hour."""
LEAST = 0.15
ENOUGH = 40
"""Principals below which stretches of each one's traffic are blocks, as in the proxy."""
_KEY = b"a study"


def main() -> int:
    """Run the study; 1 when a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder")
    chosen = parser.parse_args()
    if not (chosen.data / "cifar10").is_dir():
        parser.error(f"{chosen.data} has no folder cifar10: see python -m loadtests.quality --help")
    sizes, counts = (QUICK, Counts(4, 4, 1, 1)) if chosen.quick else (Sizes(), Counts())
    report = Report("Drift of a population")
    scene = scene_of(chosen.data, sizes)
    sides = [side_of(scene, sizes, seed) for seed in range(counts.sides)]
    judged = [
        {g: side.judged(each) for g, each in {**scene.benign, **scene.changed}.items()}
        for side in sides
    ]
    study = Study(scene, sides, judged, counts, report)
    for name, draw in QUIET.items():
        study.quiet(name, draw, by_stretch=False)
        if name.startswith(("4 ", "25 ", GATEWAY)):
            study.quiet(name, draw, by_stretch=True)
    for name in scene.changed:
        for share in (0.05, 0.2, 0.5, 1.0) if name in KINDS else (0.25, 0.5, 1.0):
            study.drifting(name, share)
    for share in (0.25, 0.5, 1.0):
        study.drifting("three classes only", share)
    for name in ("brightness x0.7", "blur 1 pixel", "textures"):
        study.drifting(name, 1.0, clients=1)
    for flood in (1, 20):
        for principals in (1, 5, 10, 20, 30, 40, 60):
            study.lever(principals, 200, flood)
        for principals in (1, 2, 3):
            study.lever(principals, 10, flood)
    return report.finish(chosen.json)


# -- the study -------------------------------------------------------------------------------------


class Study:
    """Windows of traffic against calibrations."""

    def __init__(
        self,
        scene: Scene,
        sides: list[Side],
        judged: list[dict[str, dict[str, npt.NDArray[np.float64]]]],
        counts: Counts,
        report: Report,
    ) -> None:
        self._scene, self._sides, self._judged = scene, sides, judged
        self._counts, self._report = counts, report
        groups = list(scene.benign.values())
        self._benign = {name: np.stack([each[name] for each in groups]) for name in groups[0]}

    def quiet(self, name: str, draw: Draw, *, by_stretch: bool) -> None:
        """Windows without drift: how often it is found all the same."""
        found = plain = loud = windows = 0
        effective = []
        block = "stretch" if by_stretch else "principal"
        for number, side in enumerate(self._sides):
            for turn in range(self._counts.quiet):
                rng = np.random.default_rng([number, turn])
                traffic = draw(rng, len(side.live), len(self._scene.benign))
                values = self._values(number, traffic)
                findings = _compared(side, traffic.principals, values, by_stretch=by_stretch)
                found += alarm(findings, ALPHA, 0.0).is_drift
                loud += alarm(findings, OPERATING, LEAST).is_drift
                plain += side.plain(values, ALPHA)
                windows += 1
                effective.append(np.median([each.effective_samples for each in findings]))
        self._report.add(
            no_drift=name,
            block=block,
            windows=windows,
            found=round(found / windows, 4),
            found_low=round(lower_bound(found, windows, 0.975), 4),
            found_high=round(upper_bound(found, windows, 0.975), 4),
            alarms=loud,
            alarms_high=round(upper_bound(loud, windows, 0.975), 4),
            plain_ks=round(plain / windows, 4),
            effective=round(float(np.median(effective))),
        )
        where = {"no_drift": name, "block": block}
        self._report.figure("false_findings", found / windows, f"<= {ALPHA}", **where)
        self._report.figure("false_alarms", loud / windows, "<= 0", **where)

    def drifting(self, name: str, share: float, *, clients: int = 200) -> None:
        """The last part of a window is changed, of everybody's samples alike."""

        def change(rng: np.random.Generator, traffic: Traffic) -> npt.NDArray[np.bool_]:
            traffic.principals[:] %= clients
            if name in KINDS:
                return rng.random(WINDOW) < share
            return np.arange(WINDOW) >= round((1 - share) * WINDOW)

        alarms, windows, farthest, why = self._changed(name, change, clients)
        self._report.add(
            drift=name,
            share=share,
            clients=clients,
            samples=round(share * WINDOW),
            windows=windows,
            alarms=round(alarms / windows, 3),
            low=round(lower_bound(alarms, windows, 0.975), 3),
            high=round(upper_bound(alarms, windows, 0.975), 3),
            distance=round(farthest, 3),
            mostly=why,
        )

    def lever(self, principals: int, clients: int, flood: int) -> None:
        """Some principals send what is farthest from all benign groups, and much of it."""

        def change(rng: np.random.Generator, traffic: Traffic) -> npt.NDArray[np.bool_]:
            hostile = rng.choice(clients, principals, replace=False)
            weight = np.ones(clients)
            weight[hostile] = flood
            traffic.principals[:] = rng.choice(clients, WINDOW, p=weight / weight.sum())
            return np.isin(traffic.principals, hostile)

        alarms, windows, farthest, _ = self._changed("brightness x0.3", change, clients)
        self._report.add(
            hostile_principals=principals,
            of=clients,
            flood=flood,
            traffic_share=round(
                principals * flood / (principals * flood + clients - principals), 3
            ),
            windows=windows,
            alarms=round(alarms / windows, 3),
            low=round(lower_bound(alarms, windows, 0.975), 3),
            high=round(upper_bound(alarms, windows, 0.975), 3),
            distance=round(farthest, 3),
        )

    def _changed(
        self,
        name: str,
        change: Callable[[np.random.Generator, Traffic], npt.NDArray[np.bool_]],
        clients: int,
    ) -> tuple[int, int, float, str]:
        """Alarms, windows, the mean largest distance, and the signal that most alarms rest on."""
        alarms = windows = 0
        farthest, why = [], []
        for number, side in enumerate(self._sides[:: self._counts.every]):
            place = number * self._counts.every
            for turn in range(self._counts.drifting):
                rng = np.random.default_rng([1, number, turn])
                traffic = mixed(rng, len(side.live), len(self._scene.benign))
                moved = change(rng, traffic)
                values = self._values(place, traffic)
                self._replace(place, name, values, moved, rng)
                by_stretch = clients < ENOUGH
                findings = _compared(side, traffic.principals, values, by_stretch=by_stretch)
                decision = alarm(findings, OPERATING, LEAST)
                alarms, windows = alarms + decision.is_drift, windows + 1
                far = max(findings, key=lambda each: each.distance)
                farthest.append(far.distance)
                why.append(far.signal)
        return alarms, windows, float(np.mean(farthest)), max(sorted(set(why)), key=why.count)

    def _values(self, number: int, traffic: Traffic) -> dict[str, npt.NDArray[np.float64]]:
        images = self._sides[number].live[traffic.images]
        verdicts = [self._judged[number][group][VERDICT] for group in self._scene.benign]
        every = {**self._benign, VERDICT: np.stack(verdicts)}
        return {name: each[traffic.groups, images] for name, each in every.items()}

    def _replace(
        self,
        number: int,
        name: str,
        values: dict[str, npt.NDArray[np.float64]],
        moved: npt.NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> None:
        """Put changed samples in the places of `moved`."""
        if name in self._judged[number]:
            changed = self._judged[number][name]
            rows = rng.integers(0, len(changed[CLASSES]), int(moved.sum()))
        else:
            changed = self._judged[number]["clean"]
            live = self._sides[number].live
            rows = rng.choice(live[self._scene.classes[live] < 3], int(moved.sum()))
        for signal, each in values.items():
            each[moved] = changed[signal][rows]


def _compared(
    side: Side,
    principals: Integers,
    values: Mapping[str, npt.NDArray[np.float64]],
    *,
    by_stretch: bool = False,
) -> list[Finding]:
    stretch = np.arange(WINDOW) * 64 // WINDOW + 1 if by_stretch else np.zeros(WINDOW, np.int64)
    pairs, inverse = np.unique(np.stack((principals, stretch)), axis=1, return_inverse=True)
    blocks = np.array([block_of(str(p), _KEY, int(s)) for p, s in pairs.T])
    sketch = Sketch(side.reference)
    sketch.by_stretch = by_stretch
    sketch.add(blocks[inverse.ravel()], values)
    return compare(side.reference, sketch)


if __name__ == "__main__":
    sys.exit(main())
