"""Fits a model's detectors and calibrates their scores: benign images in, thresholds out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from rich.progress import Progress
from torch import Tensor

from detectors import benign, rule
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.calibration import Calibration
from detectors.drift_reference import Reference
from detectors.rule import CalibrationError
from proxy import weights
from proxy.adapt import ModelSpec
from proxy.config import Model
from proxy.devices import use_device
from proxy.errors import ConfigError
from proxy.parts import build_detectors
from proxy.rules import evidence_levels
from proxy.scoring import check_evidence
from proxy.upstream import Upstream
from tuning.attacks import FAMILIES, attack
from tuning.batches import affordable, seeded
from tuning.local_model import LocalModel
from tuning.past import Past, unchained
from tuning.supervise import Validation, learn, validate
from tuning.witness import Witness

FIT_SHARE = 1 / 3
"""Share of the images detectors learn from; the rest sets the thresholds. Kept apart, since a
score is too small on the images its detector has seen."""

_CHUNK = 128
_ATTACKED = 400
"""Samples attacked in each way, at most, to learn from."""
_SEQUENCES = (400, 1000)
"""Sequences of each family, at most, to fit on and for thresholds; but for the latter as many as
the false-positive rate takes. A threshold is the largest over the groups: from few samples each,
it would be the most uncertain group's, and too high."""

Groups = Mapping[str, Evidence]


@dataclass(frozen=True, slots=True)
class Result:
    """A finished calibration."""

    calibration: Calibration
    detectors: tuple[Detector, ...]
    levels: Mapping[str, tuple[str, ...]]
    """Evidence level -> the detectors that can be used with it."""
    validation: tuple[Validation, ...] = ()
    """Of a learned score, where there is one."""
    reference: Reference | None = None
    """Inputs and classes of the samples that the thresholds rest on."""


def images_needed(fpr: float) -> int:
    """Fewest images a threshold at this false-positive rate takes, after both splits.

    Raises:
        ConfigError: it is not a rate.
    """
    if not 0 < fpr < 1:
        raise ConfigError(f"the false-positive rate must be between 0 and 1, not {fpr:g}")
    held = math.ceil(1 / fpr - 1e-9) - 1
    images = held
    while _rest(_rest(images, FIT_SHARE), rule.FIT_SHARE) < held:
        images += 1
    return images


def _rest(count: int, share: float) -> int:
    return count - round(count * share)


@dataclass(frozen=True, slots=True)
class Samples:
    """What a calibration learns from."""

    x: Tensor
    """Benign samples, e.g. (N, C, H, W) float32 in [0, 1]."""
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    """Benign groups of the user's own, beside `x` and its variations: name -> (M, ...)."""
    copy: LocalModel | None = None
    """A local copy of the model, for a score learned from attacks on it besides."""


async def calibrate(
    upstream: Upstream,
    spec: ModelSpec,
    model: Model,
    samples: Samples,
    *,
    seed: int,
    progress: Progress,
    networks: Mapping[str, weights.Trained],
) -> Result:
    """Fit the model's detectors on one part of the samples and calibrate on the other.

    Args:
        seed: of the split and the benign variations.
        progress: gets a task for each step.
        networks: those the detectors use, trained.

    Raises:
        ConfigError: too few images.
        ProxyError: the model cannot be asked.
    """
    device = use_device("auto")
    parts = build_detectors(model)
    weights.give(parts, networks)
    check_evidence(spec, parts)
    generator = torch.Generator().manual_seed(seed)
    first, rest = benign_groups(samples, generator)
    chained = [d for d in parts if d.needs is Need.HISTORY]
    past = None
    if chained:
        needed = _rest(images_needed(model.fpr), FIT_SHARE)
        counts = (_SEQUENCES[0], max(_SEQUENCES[1], needed))
        past = Past(spec, (first, rest), counts, seed=seed, device=device, progress=progress)
    for detector in parts:
        detector.prepare(first["clean"].to(device))
    witness = Witness(upstream, spec, parts, progress, generator)
    fit = await witness.evidence(first, "asking (fit)")
    held = await witness.evidence(rest, "asking (threshold)")
    single = [d for d in parts if d not in chained]
    _fit_all(single, fit, device)
    scores = _score_all(single, held, device, progress)
    seen = Reference.of_evidence({group: (e.x, e.output) for group, e in held.items()})
    if past is not None:
        learned, held = past.evidence(held, _anomaly(single, scores, model.fpr))
        _fit_all(chained, learned, device)
        found = _score_all(chained, held, device, progress)
        scores = {group: scores[group] | found[group] for group in held}
    calibration = _calibrated(scores)
    levels = evidence_levels(parts)
    if samples.copy is None:
        return Result(calibration, parts, levels, reference=seen)
    if samples.x.ndim != 4:
        raise ConfigError("--model-file: attacks to learn from are made on images only")
    _check_copy(samples.copy, first["clean"], fit["clean"].output, device)
    hostile = _attacked(samples.copy, first["clean"], device, seed, progress)
    asked = unchained(await witness.evidence(hostile, "asking (attacked)"))
    attacked = _score_all(parts, asked, device, progress)
    silent = [d.name for d in chained]
    validation = validate(calibration, levels, attacked, model.fpr, silent)
    learned_too = learn(calibration, levels, attacked, silent)
    return Result(learned_too, parts, levels, tuple(validation), seen)


def benign_groups(
    samples: Samples, generator: torch.Generator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Benign groups to fit detectors on, and others for thresholds.

    Raises:
        ConfigError: a group of the user's has the name of a built-in one.
    """
    halves = []
    # Groups of one size are split alike: they may be variations of the same images, and an image
    # a detector was fitted on must be in no threshold in another guise.
    orders = {
        len(x): torch.randperm(len(x), generator=generator)
        for x in (samples.x, *samples.groups.values())
    }
    own = {name: _split(x, orders[len(x)]) for name, x in samples.groups.items()}
    for number, part in enumerate(_split(samples.x, orders[len(samples.x)])):
        groups = benign.variations(part, generator)
        taken = sorted(set(groups) & set(own))
        if taken:
            raise ConfigError(f"--group {', '.join(taken)}: the name is that of a built-in group")
        halves.append(groups | {name: parts[number] for name, parts in own.items()})
    return halves[0], halves[1]


def _split(x: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    shuffled = x[order]
    cut = round(len(x) * FIT_SHARE)
    return shuffled[:cut], shuffled[cut:]


def _anomaly(
    parts: Sequence[Detector], scores: Mapping[str, Mapping[str, Tensor]], fpr: float
) -> Callable[[Tensor], Tensor] | None:
    """How unusual inputs look to the detectors that need nothing else; None where there are none.

    As the finished calibration will have it: what looks at earlier queries adds a column to the
    benign scores, and changes none.
    """
    judges = {d.name: d for d in parts if d.needs is Need.INPUT}
    if not judges:
        return None
    try:
        rule = Calibration.fit(scores).rule([list(judges)], fpr)
    except CalibrationError as error:
        raise ConfigError(str(error)) from error
    return lambda x: rule.score({n: d.score(Evidence(x)).cpu() for n, d in judges.items()})


def _calibrated(scores: Mapping[str, Mapping[str, Tensor]]) -> Calibration:
    try:
        return Calibration.fit(scores)
    except CalibrationError as error:
        raise ConfigError(str(error)) from error


def _check_copy(copy: LocalModel, x: Tensor, answers: Tensor | None, device: torch.device) -> None:
    """Refuse a copy that is of another model; nobody can tell where no detector wants answers."""
    if answers is not None:
        copy.check(x.to(device), answers, affordable(_CHUNK, tuple(x.shape[1:])))


def _attacked(
    copy: LocalModel, x: Tensor, device: torch.device, seed: int, progress: Progress
) -> dict[str, Tensor]:
    """Attacked copies of samples detectors were fitted on, by kind of attack."""
    task = progress.add_task("attacking", total=len(FAMILIES))
    made = {}
    for kind in FAMILIES:
        parts = x[:_ATTACKED].to(device).split(affordable(_CHUNK, tuple(x.shape[1:])))
        made[kind] = torch.cat(
            [attack(copy, part, seeded(seed, kind, i), [kind]) for i, part in enumerate(parts)]
        ).cpu()
        progress.advance(task)
    return made


def _score_all(
    parts: Sequence[Detector],
    groups: Groups,
    device: torch.device,
    progress: Progress,
) -> dict[str, dict[str, Tensor]]:
    """Scores by group and detector."""
    task = progress.add_task("scoring", total=len(parts) * len(groups))
    scores: dict[str, dict[str, Tensor]] = {}
    for group, evidence in groups.items():
        scores[group] = {}
        for detector in parts:
            scores[group][detector.name] = _scores(detector, evidence, device)
            progress.advance(task)
    return scores


def _fit_all(parts: Sequence[Detector], groups: Groups, device: torch.device) -> None:
    here = {group: _on(evidence, device) for group, evidence in groups.items()}
    for detector in parts:
        try:
            detector.fit(here)
        except DetectorError as error:
            raise ConfigError(
                f"{detector.name} cannot be fitted: {error} (a third of the images is for "
                "fitting: it takes three times as many)"
            ) from error


def _scores(detector: Detector, evidence: Evidence, device: torch.device) -> Tensor:
    """All scores of one group, in chunks that fit the device."""
    scores = [
        detector.score(_on(_rows(evidence, start), device)).cpu()
        for start in range(0, len(evidence.x), _CHUNK)
    ]
    return torch.cat(scores) if scores else torch.empty(0)


def _rows(evidence: Evidence, start: int) -> Evidence:
    rows = slice(start, start + _CHUNK)
    return Evidence(
        evidence.x[rows],
        None if evidence.output is None else evidence.output[rows],
        {key: view[rows] for key, view in evidence.views.items()},
        None if evidence.chain is None else evidence.chain[rows],
    )


def _on(evidence: Evidence, device: torch.device) -> Evidence:
    return Evidence(
        evidence.x.to(device),
        None if evidence.output is None else evidence.output.to(device),
        {key: view.to(device) for key, view in evidence.views.items()},
        None if evidence.chain is None else evidence.chain.to(device),
    )
