"""`breakwater calibrate`: fit the detectors and set the threshold, on benign data only."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from detectors import benign, calibration
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.calibration import Calibration, CalibrationError
from proxy import artifacts
from proxy.adapt import ModelSpec, resolve
from proxy.config import Config, Model
from proxy.defences import describe
from proxy.errors import ConfigError, ProxyError
from proxy.scoring import build_detectors, check_evidence, use_device
from proxy.upstream import Upstream
from tuning import dataset
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


def run(
    config: Config,
    name: str,
    data: Path,
    *,
    fpr: float | None = None,
    out: Path | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> int:
    """Calibrate one model and write the result; returns the exit status.

    Raises:
        ConfigError: nothing can be calibrated, or not to the wanted rate; says what to do.
    """
    console = console or Console(stderr=True)
    model = _model(config, name)
    folder = out or model.calibration
    if folder is None:
        raise ConfigError("say where to write with --out DIR")
    wanted = fpr if fpr is not None else model.fpr
    images = _images(data, wanted)
    result, version = asyncio.run(_calibrate(config, name, model, images.x, seed, console))
    _report(console, result, wanted, len(images.x))
    artifacts.save(
        folder,
        calibration=result.calibration,
        states={d.name: d.state() for d in result.detectors},
        provenance=artifacts.Provenance(
            model=name,
            model_version=version,
            data_sha256=images.sha256,
            samples=len(images.x),
            groups=tuple(result.calibration.groups),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            defence=artifacts.defence_of(model),
        ),
    )
    console.print(f"written to {folder}")
    return 0


def _model(config: Config, name: str) -> Model:
    model = config.models.get(name)
    if model is None:
        known = ", ".join(config.models) or "none"
        raise ConfigError(f"no model {name!r} in the configuration (there: {known})")
    if not model.detectors:
        raise ConfigError(f"models.{name} lists no detectors, so there is nothing to calibrate")
    return model


def _images(data: Path, fpr: float) -> dataset.Dataset:
    needed = images_needed(fpr)
    images = dataset.load(data)
    if len(images.x) < needed:
        raise ConfigError(
            f"{data} has {len(images.x)} images; a false-positive rate of {fpr:g} needs at "
            f"least {needed}"
        )
    return images


def images_needed(fpr: float) -> int:
    """Fewest images a threshold at this false-positive rate takes, after both splits.

    Raises:
        ConfigError: it is not a rate.
    """
    if not 0 < fpr < 1:
        raise ConfigError(f"the false-positive rate must be between 0 and 1, not {fpr:g}")
    held = math.ceil(1 / fpr - 1e-9) - 1
    images = held
    while _rest(_rest(images, FIT_SHARE), calibration.FIT_SHARE) < held:
        images += 1
    return images


def _rest(count: int, share: float) -> int:
    return count - round(count * share)


async def _calibrate(
    config: Config, name: str, model: Model, x: Tensor, seed: int, console: Console
) -> tuple[Result, str]:
    upstream = Upstream(config.upstream, max_message_bytes=config.max_message_bytes)
    try:
        metadata, described = await describe(upstream, name)
        spec = resolve(name, model, metadata, described)
        result = await calibrate(upstream, spec, model, x, seed=seed, console=console)
    except ConfigError:
        raise
    except ProxyError as error:
        raise ConfigError(
            f"the model {name} cannot be asked at {config.upstream}: {error}; "
            "is Triton running there?"
        ) from error
    finally:
        await upstream.close()
    return result, ",".join(metadata.versions)


async def calibrate(
    upstream: Upstream,
    spec: ModelSpec,
    model: Model,
    x: Tensor,
    *,
    seed: int,
    console: Console,
) -> Result:
    """Fit the model's detectors on one part of `x` and calibrate their scores on the other.

    Args:
        x: benign images, (N, C, H, W) float32 in [0, 1].
        seed: of the split and the benign variations.

    Raises:
        ConfigError: too few images.
        ProxyError: the model cannot be asked.
    """
    device = use_device("auto")
    parts = build_detectors(model)
    check_evidence(spec, parts)
    client = ModelClient(upstream, spec) if any(d.needs is not Need.INPUT for d in parts) else None
    generator = torch.Generator().manual_seed(seed)
    x = x[torch.randperm(len(x), generator=generator)]
    cut = round(len(x) * FIT_SHARE)
    with _progress(console) as progress:
        ask = partial(_evidence, spec, parts, client, generator, progress)
        fit = await ask(x[:cut], "asking (fit)")
        rest = await ask(x[cut:], "asking (threshold)")
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
    levels = _levels(parts)
    try:
        fused = Calibration.fit(scores, list(levels.values()))
    except CalibrationError as error:
        raise ConfigError(str(error)) from error
    return Result(fused, parts, levels)


def _fit(detector: Detector, groups: Groups) -> None:
    try:
        detector.fit(groups)
    except DetectorError as error:
        raise ConfigError(
            f"{detector.name} cannot be fitted: {error} (a third of the images is for fitting: it "
            "takes three times as many)"
        ) from error


async def _evidence(
    spec: ModelSpec,
    parts: Sequence[Detector],
    client: ModelClient | None,
    generator: torch.Generator,
    progress: Progress,
    x: Tensor,
    title: str,
) -> dict[str, Evidence]:
    """Evidence for the images and each benign variation of them, as the proxy will see them."""
    groups = {
        name: as_seen(spec, images) for name, images in benign.variations(x, generator).items()
    }
    views = {view.key: view for d in parts for view in d.views}
    asked = 0 if client is None else sum(len(g) for g in groups.values()) * (1 + len(views))
    task = progress.add_task(title, total=asked or len(groups))
    evidence: dict[str, Evidence] = {}
    for group, images in groups.items():
        if client is None:
            evidence[group] = Evidence(images)
            progress.advance(task)
            continue

        async def ask(batch: Tensor, asks: ModelClient = client) -> Tensor:
            return await asks.answers(batch, lambda n: progress.advance(task, n))

        evidence[group] = Evidence(
            images,
            await ask(images),
            {key: await ask(view.purify(images)) for key, view in views.items()},
        )
    return evidence


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


def _levels(parts: Sequence[Detector]) -> dict[str, tuple[str, ...]]:
    """The detectors usable at each level of evidence; levels that add none are left out."""
    order = (Need.INPUT, Need.OUTPUT, Need.VIEWS)
    levels: dict[str, tuple[str, ...]] = {}
    for position, need in enumerate(order):
        names = tuple(d.name for d in parts if order.index(d.needs) <= position)
        if names and names not in levels.values():
            levels[need.value] = names
    return levels


def _report(console: Console, result: Result, fpr: float, samples: int) -> None:
    table = Table(title=f"Thresholds at a false-positive rate of {fpr:.2%}, {samples} images")
    for column in ("evidence", "detectors", "threshold", "rate at most (95 %)", "worst group"):
        table.add_column(column)
    for level, names in result.levels.items():
        try:
            threshold = result.calibration.threshold(names, fpr)
        except CalibrationError as error:
            raise ConfigError(str(error)) from error
        table.add_row(
            level,
            ", ".join(names),
            f"{threshold.value:.3f}",
            f"{threshold.fpr_upper:.2%}",
            threshold.worst_group,
        )
    console.print(table)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
