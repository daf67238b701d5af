"""A made-up evaluation with the calibration it belongs to, in the form `evaluate` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detectors.calibration import Calibration
from proxy import evaluation
from proxy.config import Model, Part
from proxy.evaluation import Evaluation, Kind
from tuning.search.latency import Cost, Paths, anchors, cost
from tuning.search.outcome import Bench, bench_of
from tuning.search.recorded import Recorded, record
from tuning.search.space import Space

PALETTE = ("high_frequency", "srm", "margin", "energy", "jpeg_view", "mirror_view")
CHAINS = {"jpeg": (Part(name="jpeg"),), "median": (Part(name="median"),)}
GROUPS = ("clean", "noise", "blur")
SHIFTS = {
    "fgsm_8": (4.0, 3.0, 0.5, 0.0, 2.0, 2.0),
    "pgd_8": (3.0, 3.0, -1.0, -1.0, 4.0, 4.0),
    "pgd_2": (0.5, 0.5, -1.0, -1.0, 2.5, 2.5),
    "deepfool": (0.0, 0.2, 4.0, 3.0, 3.0, 3.0),
    "square_8": (5.0, 4.0, 1.0, 0.5, 1.0, 1.0),
}
"""Attack -> by how much each detector's score moves, in standard deviations."""
THREATS = dict.fromkeys(SHIFTS, "oblivious") | {"square_8": "black-box query"}
SCORE_MS = dict(zip(PALETTE, (0.4, 0.8, 0.1, 0.1, 0.9, 0.4), strict=True))


def model(**changes: Any) -> Model:
    """A policy over the palette."""
    return Model.model_validate(
        {
            "calibration": "calibration",
            "detectors": [{"name": name} for name in PALETTE],
            "purifiers": [{"name": "jpeg"}],
            "mode": "enforce",
            "action": "purify",
            **changes,
        }
    )


def calibration(samples: int = 1500) -> Calibration:
    """Benign scores, normal, and a little higher in noise."""
    generator = torch.Generator().manual_seed(1)
    return Calibration.fit(
        {
            group: {
                name: torch.randn(samples, generator=generator) + 0.3 * (group == "noise")
                for name in PALETTE
            }
            for group in GROUPS
        }
    )


def made(benign: int = 800, attacked: int = 200, *, chains: bool = True) -> Evaluation:
    """An evaluation whose attacks move scores by `SHIFTS`."""
    rng = np.random.default_rng(2)
    ways = ("none", *CHAINS) if chains else ("none",)
    kinds = [
        Kind(
            evaluation.BENIGN,
            group,
            (rng.normal(size=(benign, 6)) + 0.3 * (group == "noise")).astype(np.float32),
            right=_right(rng, benign, (0.92, 0.88, 0.85)[: len(ways)]),
        )
        for group in GROUPS
    ]
    kinds += [
        Kind(
            evaluation.ATTACK,
            name,
            (rng.normal(size=(attacked, 6)) + shift).astype(np.float32),
            right=_right(rng, attacked, (0.0, 0.7, 0.5)[: len(ways)]),
        )
        for name, shift in SHIFTS.items()
        if attacked
    ]
    about = {"model": "m", "threats": THREATS, "trained_on": {"fgsm_8": True}}
    return Evaluation(PALETTE, tuple(kinds), ways, about, {"model": "m", "rows": []})


def write(folder: Path, found: Evaluation) -> Path:
    """The folder `evaluate` would have written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / evaluation.REPORT_FILE).write_text(json.dumps(dict(found.report)))
    (folder / evaluation.SCORES_FILE).write_bytes(evaluation.dump(found))
    return folder


def space(**changes: Any) -> Space:
    """Every policy over the palette."""
    return Space(model(**changes), CHAINS, (0.002, 0.005, 0.01))


def bench(recorded: Recorded | None = None, over: Space | None = None) -> Bench:
    """A bench over the made-up evaluation."""
    return bench_of(recorded or record(made()), over or space(), calibration())


def paths(over: Space | None = None) -> Paths:
    """Costs that follow from the detectors: a request takes 5 ms, and its defence comes on top."""
    over = over or space()
    rng = np.random.default_rng(3)
    noise = rng.gamma(2.0, 0.3, 400)
    measured: dict[Any, Cost] = {}
    for anchor in anchors(over, SCORE_MS):
        extra = 0.0
        if anchor.candidate is not None:
            extra = 0.3 + sum(SCORE_MS[name] for name in anchor.candidate.detectors)
            extra += 5.0 * anchor.flagged
        measured[anchor] = cost(5.0 + extra + noise, 0.2 + extra)
    return Paths(over, SCORE_MS, measured)


def _right(rng: np.random.Generator, count: int, shares: tuple[float, ...]) -> Any:
    return (rng.random((count, len(shares))) < shares).astype(np.uint8)
