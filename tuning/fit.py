"""Fits a model's detectors and calibrates their scores: benign images in, thresholds out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from detectors import benign, rule
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.calibration import Calibration
from detectors.rule import CalibrationError
from proxy import weights
from proxy.adapt import ModelSpec
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.rules import evidence_levels
from proxy.scoring import build_detectors, check_evidence, use_device
from proxy.upstream import Upstream
from tuning.model_client import ModelClient, as_seen

FIT_SHARE = 1 / 3
"""Share of the images detectors learn from; the rest sets the thresholds. Kept apart, since a
score is too small on the images its detector has seen."""

_CHUNK = 128

Groups = Mapping[str, Evidence]


@dataclass(frozen=True, slots=True)
class Result:
    """A finished calibration."""

    calibration: Calibration
    detectors: tuple[Detector, ...]
    levels: Mapping[str, tuple[str, ...]]
    """Evidence level -> the detectors that can be used with it."""


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


async def calibrate(
    upstream: Upstream,
    spec: ModelSpec,
    model: Model,
    x: Tensor,
    *,
    seed: int,
    progress: Progress,
    networks: Mapping[str, weights.Trained],
) -> Result:
    """Fit the model's detectors on one part of `x` and calibrate their scores on the other.

    Args:
        x: benign images, (N, C, H, W) float32 in [0, 1].
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
    x = x[torch.randperm(len(x), generator=generator)]
    cut = round(len(x) * FIT_SHARE)
    witness = _Witness(upstream, spec, parts, generator, progress)
    fit = await witness.evidence(x[:cut], "asking (fit)")
    rest = await witness.evidence(x[cut:], "asking (threshold)")
    scored = progress.add_task("scoring", total=len(parts) * (1 + len(rest)))
    for detector in parts:
        _fit(detector, {group: _on(e, device) for group, e in fit.items()})
        progress.advance(scored)
    scores: dict[str, dict[str, Tensor]] = {}
    for group, evidence in rest.items():
        scores[group] = {}
        for detector in parts:
            scores[group][detector.name] = _scores(detector, evidence, device)
            progress.advance(scored)
    try:
        calibration = Calibration.fit(scores)
    except CalibrationError as error:
        raise ConfigError(str(error)) from error
    return Result(calibration, parts, evidence_levels(parts))


def _fit(detector: Detector, groups: Groups) -> None:
    try:
        detector.fit(groups)
    except DetectorError as error:
        raise ConfigError(
            f"{detector.name} cannot be fitted: {error} (a third of the images is for fitting: it "
            "takes three times as many)"
        ) from error


class _Witness:
    """Gathers evidence on benign images, as the proxy will see it.

    Args:
        parts: say what evidence is needed; the model is asked only if one needs its answers.
        generator: of the benign variations.
    """

    def __init__(
        self,
        upstream: Upstream,
        spec: ModelSpec,
        parts: Sequence[Detector],
        generator: torch.Generator,
        progress: Progress,
    ) -> None:
        asks = any(d.needs is not Need.INPUT for d in parts)
        self._client = ModelClient(upstream, spec) if asks else None
        self._spec = spec
        self._views = {view.key: view for d in parts for view in d.views}
        self._generator = generator
        self._progress = progress

    async def evidence(self, x: Tensor, title: str) -> dict[str, Evidence]:
        """Evidence on the images and each benign variation of them, by group."""
        variations = benign.variations(x, self._generator)
        groups = {name: as_seen(self._spec, images) for name, images in variations.items()}
        if self._client is None:
            return {group: Evidence(images) for group, images in groups.items()}
        total = sum(len(images) for images in groups.values()) * (1 + len(self._views))
        task = self._progress.add_task(title, total=total)
        evidence = {}
        for group, images in groups.items():
            evidence[group] = Evidence(
                images,
                await self._ask(self._client, images, task),
                {
                    key: await self._ask(self._client, view.purify(images), task)
                    for key, view in self._views.items()
                },
            )
        return evidence

    async def _ask(self, client: ModelClient, x: Tensor, task: TaskID) -> Tensor:
        return await client.answers(x, lambda count: self._progress.advance(task, count))


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
    )


def _on(evidence: Evidence, device: torch.device) -> Evidence:
    return Evidence(
        evidence.x.to(device),
        None if evidence.output is None else evidence.output.to(device),
        {key: view.to(device) for key, view in evidence.views.items()},
    )
