"""The scores of `loadtests.live_calibration`: a calibrated model, benign images and attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import detectors
from detectors.base import Detector, Evidence
from detectors.benign import rounded, variations
from detectors.calibration import Calibration
from loadtests.cifar import ResNet, load_images, load_model
from tuning.evaluate.attacks import ATTACKS, attacked
from tuning.live_scores import Scores

PARTS = ("srm", "high_frequency", "jpeg_view", "mirror_view")
"""The tier of two copies of the quality study."""
KINDS = ("fgsm8", "pgd2", "pgd4", "deepfool")
"""Attacks, from plain to hard to see."""
_CHUNK = 200


@dataclass(frozen=True)
class Sizes:
    """How many images each step uses."""

    fit: int = 300
    calibrate: int = 900
    live: int = 2000
    attack: int = 160
    draws: int = 5


QUICK = Sizes(fit=150, calibrate=700, live=1600, attack=40, draws=2)


@dataclass(frozen=True)
class Scene:
    """All scores there are."""

    data: Calibration
    benign: Scores
    """Of fresh images, (N, D)."""
    changed: Scores
    """Of the same images sharpened, as some cameras do: a kind nobody calibrated on."""
    hostile: Mapping[str, Scores]
    """Of successful attacks, by kind, on images in one order."""


def scene_of(data: Path, sizes: Sizes) -> Scene:
    """Fit, calibrate and score; `data` is the data folder."""
    model = load_model(data)
    generator = torch.Generator().manual_seed(1)
    learned, _ = load_images(data, "train", sizes.fit, seed=101)
    x, y = load_images(data, "test", 5000)
    parts = [detectors.build(name, {}) for name in PARTS]
    fitting = {g: _evidence(model, parts, e) for g, e in variations(learned, generator).items()}
    for part in parts:
        part.prepare(learned)
        part.fit(fitting)
    held = variations(x[: sizes.calibrate], generator)
    data_scores = {g: _scores(model, parts, each) for g, each in held.items()}
    calibration = Calibration.fit(
        {
            g: dict(zip(PARTS, torch.from_numpy(each.T.astype(np.float32)), strict=True))
            for g, each in data_scores.items()
        }
    )
    fresh = x[sizes.calibrate : -2 * sizes.attack]
    smooth = F.avg_pool2d(F.pad(fresh, (1, 1, 1, 1), "replicate"), 3, 1)
    changed = rounded((fresh + 0.5 * (fresh - smooth)).clamp(0, 1))
    hostile = {}
    for kind in KINDS:
        made = attacked(ATTACKS[kind], model, x[-2 * sizes.attack :], y[-2 * sizes.attack :])
        hostile[kind] = _scores(model, parts, made.x)
        hostile[kind][~made.fooled.numpy()] = np.nan
    order = [PARTS.index(name) for name in calibration.names]
    return Scene(
        calibration,
        _scores(model, parts, fresh)[:, order],
        _scores(model, parts, changed)[:, order],
        {kind: scores[:, order] for kind, scores in hostile.items()},
    )


def _evidence(model: ResNet, parts: Sequence[Detector], x: Tensor) -> Evidence:
    generator = torch.Generator().manual_seed(5)
    views = {view.key: view.purify(x, generator) for part in parts for view in part.views}
    with torch.inference_mode():
        answers = {
            key: torch.cat([model(piece) for piece in each.split(_CHUNK)])
            for key, each in {"": x, **views}.items()
        }
    return Evidence(x, answers.pop(""), answers)


def _scores(model: ResNet, parts: Sequence[Detector], x: Tensor) -> Scores:
    """(N, D), in the order of the parts."""
    found = []
    for piece in x.split(_CHUNK):
        evidence = _evidence(model, parts, piece)
        found.append(torch.stack([part.score(evidence) for part in parts], dim=1))
    return torch.cat(found).numpy().astype(np.float64)
