"""The signals of `loadtests.drift`, of benign, changed and attacked images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

import detectors
from detectors.base import Detector, Evidence
from detectors.benign import blurred, compressed, rounded, variations
from detectors.calibration import Calibration
from detectors.drift_inputs import input_statistics
from detectors.drift_reference import CLASSES, INPUT, SCORE, VERDICT, Reference, nominal, ordered
from detectors.rule import Rule
from loadtests.cifar import ResNet, load_images, load_model
from tuning.drift import distance, p_value
from tuning.evaluate.attacks import ATTACKS, attacked

PARTS = ("srm", "high_frequency", "jpeg_view", "margin")
KINDS = ("fgsm8", "pgd4", "deepfool")
FPR = 0.01
_CHUNK = 200

Floats = npt.NDArray[np.float64]
Signals = Mapping[str, Floats]
"""Signal -> (N,) values of N samples, without verdicts."""


@dataclass(frozen=True)
class Sizes:
    """How many images each step uses."""

    fit: int = 300
    calibrate: int = 900
    benign: int = 3600
    changed: int = 800
    attack: int = 160


QUICK = Sizes(fit=150, calibrate=500, benign=1200, changed=300, attack=40)


@dataclass(frozen=True)
class Scene:
    """All signals there are; benign image i is row i of every group."""

    benign: Mapping[str, Signals]
    """By benign group."""
    changed: Mapping[str, Signals]
    """By kind of change, of images that are not among the benign ones."""
    classes: Floats
    """True class of the benign images."""


@dataclass(frozen=True)
class Side:
    """One draw of a calibration, and the benign images that are left for traffic."""

    reference: Reference
    rule: Rule
    names: tuple[str, ...]
    live: npt.NDArray[np.int64]
    samples: Mapping[str, Floats]
    """Benign values of all groups together, for the Kolmogorov-Smirnov test."""

    def judged(self, signals: Signals) -> dict[str, Floats]:
        """The signals with the verdicts of this calibration."""
        scores = {n: torch.from_numpy(signals[SCORE + n]).float() for n in self.names}
        over = self.rule.score(scores) > self.rule.threshold.value
        return {**signals, VERDICT: over.double().numpy()}

    def plain(self, signals: Signals, alpha: float) -> bool:
        """Whether a Kolmogorov-Smirnov test of any signal finds something, at one level for all."""
        return any(
            p_value(distance(signals[name], benign), len(signals[name]), len(benign))
            <= alpha / len(self.samples)
            for name, benign in self.samples.items()
        )


def scene_of(data: Path, sizes: Sizes) -> Scene:
    """Fit the detectors and work out every signal; `data` is the data folder."""
    model = load_model(data)
    generator = torch.Generator().manual_seed(1)
    learned, _ = load_images(data, "train", sizes.fit, seed=101)
    x, y = load_images(data, "test", sizes.benign + sizes.changed + sizes.attack)
    parts = [detectors.build(name, {}) for name in PARTS]
    fitting = {g: _evidence(model, parts, e) for g, e in variations(learned, generator).items()}
    for part in parts:
        part.prepare(learned)
        part.fit(fitting)
    benign = variations(x[: sizes.benign], generator)
    fresh = x[sizes.benign : sizes.benign + sizes.changed]
    signals = {name: change(fresh, generator) for name, change in CHANGES.items()}
    for kind in KINDS:
        made = attacked(ATTACKS[kind], model, x[-sizes.attack :], y[-sizes.attack :])
        signals[kind] = made.x[made.fooled]
    return Scene(
        {group: _signals(model, parts, each) for group, each in benign.items()},
        {name: _signals(model, parts, each) for name, each in signals.items()},
        y[: sizes.benign].double().numpy(),
    )


def side_of(scene: Scene, sizes: Sizes, seed: int) -> Side:
    """A calibration on images drawn at random, with what is left as traffic."""
    order = np.random.default_rng(seed).permutation(sizes.benign)
    own, live = order[: sizes.calibrate], order[sizes.calibrate :]
    groups = {g: {n: v[own] for n, v in each.items()} for g, each in scene.benign.items()}
    calibration = Calibration.fit(
        {
            g: {p: torch.from_numpy(each[SCORE + p]).float() for p in PARTS}
            for g, each in groups.items()
        },
        seed=seed,
    )
    stored = {
        name: (nominal if name == CLASSES else ordered)([each[name] for each in groups.values()])
        for name in next(iter(groups.values()))
        if not name.startswith(SCORE)
    }
    reference = Reference.of_calibration(calibration, FPR, Reference(stored))
    rule = calibration.rule([calibration.names], FPR)
    joined = {
        name: np.sort(np.concatenate([each[name] for each in groups.values()]))
        for name in reference.signals
        if name not in (CLASSES, VERDICT)
    }
    return Side(reference, rule, calibration.names, live, joined)


# -- signals ---------------------------------------------------------------------------------------


def _evidence(model: ResNet, parts: Sequence[Detector], x: Tensor) -> Evidence:
    generator = torch.Generator().manual_seed(5)
    views = {view.key: view.purify(x, generator) for part in parts for view in part.views}
    with torch.inference_mode():
        answers = {
            key: torch.cat([model(piece) for piece in each.split(_CHUNK)])
            for key, each in {"": x, **views}.items()
        }
    return Evidence(x, answers.pop(""), answers)


def _signals(model: ResNet, parts: Sequence[Detector], x: Tensor) -> Signals:
    found: dict[str, list[Tensor]] = {}
    for piece in x.split(_CHUNK):
        evidence = _evidence(model, parts, piece)
        values = {SCORE + part.name: part.score(evidence) for part in parts}
        values |= {INPUT + name: value for name, value in input_statistics(piece).items()}
        if evidence.output is not None:
            values[CLASSES] = evidence.output.argmax(dim=1)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(each).double().numpy() for name, each in found.items()}


def _brightness(factor: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda x, _: rounded(x * factor)


def _blur(x: Tensor, _: torch.Generator) -> Tensor:
    return rounded(blurred(x, torch.full((len(x),), 1.0), radius=3))


def _jpeg(x: Tensor, _: torch.Generator) -> Tensor:
    return compressed(x, torch.full((len(x),), 30), subsample=True)


def _sharp(x: Tensor, _: torch.Generator) -> Tensor:
    smooth = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    return rounded(x + 0.5 * (x - smooth))


def _textures(x: Tensor, generator: torch.Generator) -> Tensor:
    """Stripes of a random direction, width and pair of colours: of no class."""
    count, _, height, width = x.shape
    angle, wide, phase = torch.rand(3, count, 1, 1, generator=generator)
    down, across = torch.arange(height)[:, None], torch.arange(width)[None]
    place = down * (angle * 3.1416).sin() + across * (angle * 3.1416).cos()
    wave = 0.5 + 0.5 * torch.sin(place * (0.2 + wide) + 6.2832 * phase)[:, None]  # (N, 1, H, W)
    dark, light = torch.rand(2, count, x.shape[1], 1, 1, generator=generator)
    noise = torch.randn(x.shape, generator=generator) * (1.5 / 255)
    return rounded(dark + (light - dark) * wave + noise)


CHANGES: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "brightness x0.7": _brightness(0.7),
    "brightness x0.5": _brightness(0.5),
    "brightness x0.3": _brightness(0.3),
    "blur 1 pixel": _blur,
    "JPEG 30 with 4:2:0": _jpeg,
    "sharpening camera": _sharp,
    "textures": _textures,
}
