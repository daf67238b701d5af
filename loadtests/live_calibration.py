"""Thresholds from live traffic: what attacks in the recorded scores do to them, and screening.

Detectors are fitted and a calibration made on images, as `breakwater calibrate --data` does. Then
traffic is recorded: fresh benign images, some attacked ones among them, or one principal that sends
little else; and `breakwater calibrate --live` is made of its scores, screened and not. The rate of
flagged images is measured on benign ones that were in none of it, and what is caught on attacks on
images of which no attack was recorded. The model is called directly: this measures the maths.

Needs the data folder that `python -m loadtests.quality --help` describes. About 3 minutes on one
core, with --quick 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from detectors.binomial import lower_bound, upper_bound
from detectors.calibration import Calibration
from loadtests.harness import Report, Row, options
from loadtests.live_scene import PARTS, QUICK, Scene, Sizes, scene_of
from proxy.errors import ConfigError
from tuning.live_calibration import GROUP, Outcome, Wanted, build
from tuning.live_scores import Scores, Traffic

FPR = 0.01
CONTAMINATED = (0.0, 0.01, 0.05)
CAUGHT_LESS = 0.03
"""What 1 % of attacks in the recorded traffic may cost, as a share of attacks caught."""
_PRINCIPALS = 100
_AS_IT_WAS: Mapping[str, str | float | None] = {
    "groups": "data",
    "contamination": 0.0,
    "screened": None,
    "refused": None,
    "trimmed": None,
}


def main() -> int:
    """Run the study; 1 when a goal was missed."""
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder")
    chosen = parser.parse_args()
    sizes = QUICK if chosen.quick else Sizes()
    report = Report("Thresholds from live traffic")
    scene = scene_of(chosen.data, sizes)
    for replace in (False, True):
        lost = _contaminated(report, scene, sizes, replace=replace)
        way = "live alone" if replace else "beside data"
        report.figure("tpr_lost_by_1_percent_attacks", lost, f"<= {CAUGHT_LESS}", groups=way)
    _flooded(report, scene, sizes)
    _drifted(report, scene, sizes)
    return report.finish(chosen.json)


# -- traffic, and what comes of it -----------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """Benign images in two parts, and attacks on different images in two parts."""

    live: Scores
    fresh: Scores
    recorded: Scores
    met: Scores


def _draw(scene: Scene, sizes: Sizes, seed: int, *, changed: bool = False) -> Draw:
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(scene.benign))
    benign = (scene.changed if changed else scene.benign)[order]
    images = generator.permutation(2 * sizes.attack)
    recorded, met = (
        np.concatenate([each[part] for each in scene.hostile.values()])
        for part in (images[: sizes.attack], images[sizes.attack :])
    )
    recorded, met = (each[~np.isnan(each).any(axis=1)] for each in (recorded, met))
    generator.shuffle(recorded)
    return Draw(benign[: sizes.live], benign[sizes.live :], recorded, met)


def _traffic(benign: Scores, hostile: Scores, seed: int, flooding: bool = False) -> Traffic:
    """Recorded samples: each principal's are mixed, or all hostile ones are of one."""
    generator = np.random.default_rng(seed)
    scores = np.concatenate((benign, hostile))
    principals = generator.integers(0, _PRINCIPALS, len(scores))
    if flooding:
        principals[len(benign) :] = _PRINCIPALS
    count = len(scores)
    ids = np.array([f"{i:08d}:0" for i in generator.permutation(count)], dtype=np.str_)
    by = np.argsort(ids)
    return Traffic(
        tuple(sorted(PARTS)),
        *(ids[by], principals[by].astype(np.str_), np.full(count, "", dtype=np.str_)),
        *(np.zeros(count, dtype=bool), np.zeros(count, dtype=bool), scores[by]),
    )


def _screened(scene: Scene, traffic: Traffic, wanted: Wanted) -> tuple[Outcome | None, str]:
    try:
        return build(scene.data, traffic, {"views": traffic.detectors}, wanted), ""
    except ConfigError as error:
        return None, str(error).partition(":")[0]


def _unscreened(scene: Scene, traffic: Traffic, *, replace: bool) -> Calibration:
    columns = torch.from_numpy(traffic.scores.T.astype(np.float32))
    live = dict(zip(traffic.detectors, columns, strict=True))
    return Calibration.fit({GROUP: live}) if replace else scene.data.with_group(GROUP, live)


def _over(calibration: Calibration, scores: Scores) -> tuple[int, int]:
    rule = calibration.rule([calibration.names], FPR)
    columns = torch.from_numpy(scores.T.astype(np.float32))
    fused = rule.score(dict(zip(calibration.names, columns, strict=True)))
    return int((fused > rule.threshold.value).sum()), len(scores)


def _row(
    report: Report,
    scene: Scene,
    calibrations: Sequence[Calibration],
    draws: Sequence[Draw],
    **where: str | float | None,
) -> float:
    """Means over draws, which overlap: the intervals are of one draw's size."""
    benign = [_over(c, draw.fresh) for c, draw in zip(calibrations, draws, strict=True)]
    met = [_over(c, draw.met) for c, draw in zip(calibrations, draws, strict=True)]
    fpr = float(np.mean([count / total for count, total in benign]))
    tpr = float(np.mean([count / total for count, total in met]))
    total, attacks = benign[0][1], met[0][1]
    report.add(
        **where,
        draws=len(draws),
        fpr=round(fpr, 4),
        fpr_low=round(lower_bound(round(fpr * total), total, 0.975), 4),
        fpr_high=round(upper_bound(round(fpr * total), total, 0.975), 4),
        benign=total,
        tpr=round(tpr, 4),
        tpr_low=round(lower_bound(round(tpr * attacks), attacks, 0.975), 4),
        tpr_high=round(upper_bound(round(tpr * attacks), attacks, 0.975), 4),
        attacks=attacks,
    )
    return tpr


def _contaminated(report: Report, scene: Scene, sizes: Sizes, *, replace: bool) -> float:
    """Attacks mixed in; returns what 1 % of them costs after screening."""
    draws = [_draw(scene, sizes, seed) for seed in range(sizes.draws)]
    way = "live alone" if replace else "beside data"
    if not replace:
        _row(report, scene, [scene.data] * len(draws), draws, **_AS_IT_WAS, traffic="clean")
    caught = {}
    for share in CONTAMINATED:
        count = round(share * sizes.live / (1 - share))
        mixed = [
            _traffic(draw.live, draw.recorded[:count], seed) for seed, draw in enumerate(draws)
        ]
        where: Row = {"traffic": "clean", "groups": way, "contamination": share}
        plain = [_unscreened(scene, each, replace=replace) for each in mixed]
        _row(report, scene, plain, draws, **where, screened=False, refused=None, trimmed=None)
        made = [_screened(scene, each, Wanted(FPR, replace=replace))[0] for each in mixed]
        caught[share] = _after(report, scene, made, draws, **where)
    return caught[0.0] - caught[0.01]


def _after(
    report: Report,
    scene: Scene,
    made: Sequence[Outcome | None],
    draws: Sequence[Draw],
    **where: str | float | None,
) -> float:
    """What screening makes of it; a refusal leaves the data calibration in force."""
    found = [each for each in made if each is not None]
    calibrations = [scene.data if each is None else each.calibration for each in made]
    tpr = _row(
        report,
        scene,
        calibrations,
        draws,
        **where,
        screened=True,
        refused=round(1 - len(found) / len(made), 2),
        trimmed=round(float(np.mean([each.trimmed for each in found])), 1) if found else None,
    )
    if where["contamination"] != CONTAMINATED[-1] and found:
        rates = [_over(c, draw.fresh) for c, draw in zip(calibrations, draws, strict=True)]
        bound = np.mean(
            [
                max(each.levels[-1].new.fpr_upper, each.levels[-1].live_upper_untrimmed)
                for each in found
            ]
        )
        rate = float(np.mean([count / total for count, total in rates]))
        report.figure(
            "heldout_fpr", rate, f"<= {bound:.4f}", **{k: str(v) for k, v in where.items()}
        )
    return tpr


def _flooded(report: Report, scene: Scene, sizes: Sizes) -> None:
    """One principal sends attacks only: a fifth of all that is recorded."""
    draws = [_draw(scene, sizes, seed) for seed in range(sizes.draws)]
    flood = [_traffic(d.live, d.recorded[: sizes.live // 4], i, True) for i, d in enumerate(draws)]
    share = round(float(np.mean([1 - sizes.live / len(each) for each in flood])), 3)
    where: Row = {
        "traffic": "one principal floods",
        "groups": "beside data",
        "contamination": share,
    }
    plain = [_unscreened(scene, each, replace=False) for each in flood]
    _row(report, scene, plain, draws, **where, screened=False, refused=None, trimmed=None)
    made = [_screened(scene, each, Wanted(FPR))[0] for each in flood]
    _after(report, scene, made, draws, **where)


def _drifted(report: Report, scene: Scene, sizes: Sizes) -> None:
    """Benign traffic of a kind nobody calibrated on: what accepting it as such is worth."""
    draws = [_draw(scene, sizes, seed, changed=True) for seed in range(sizes.draws)]
    where: Row = {"traffic": "sharpened images", "contamination": 0.0}
    data = [scene.data] * len(draws)
    _row(report, scene, data, draws, **_AS_IT_WAS, traffic="sharpened images")
    empty = np.empty((0, len(PARTS)))
    for accept in (False, True):
        way = "live alone, accepted" if accept else "live alone"
        wanted = Wanted(FPR, replace=True, accept_drift=accept)
        made = [
            _screened(scene, _traffic(draw.live, empty, seed), wanted)[0]
            for seed, draw in enumerate(draws)
        ]
        _after(report, scene, made, draws, **where, groups=way)


if __name__ == "__main__":
    sys.exit(main())
