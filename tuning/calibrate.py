"""`breakwater calibrate`: fit the detectors and set the threshold, on benign data only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from detectors.rule import CalibrationError
from proxy import artifacts, weights
from proxy.adapt import resolve
from proxy.config import Config, Model
from proxy.defences import describe
from proxy.errors import ConfigError, ProxyError
from proxy.scoring import use_device
from proxy.upstream import Upstream
from tuning import dataset
from tuning.fit import Result, calibrate, images_needed


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
    scoring, _ = weights.parts_of(model)
    networks = weights.load(folder, name, scoring, use_device("auto"))
    _warn_of_same_images(console, networks, images)
    result, version = asyncio.run(
        _calibrate(config, name, model, images.x, seed, console, networks)
    )
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
            weights=weights.digests(scoring, networks),
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


def _warn_of_same_images(
    console: Console, networks: Mapping[str, weights.Trained], images: dataset.Dataset
) -> None:
    """A network is surer of the images it was trained on than of others, so thresholds are low."""
    same = [n for n, t in networks.items() if t.training.plan.data_sha256 == images.sha256]
    if same:
        console.print(
            f"these very images trained {', '.join(same)}: scores on others will be higher, and "
            "more of them flagged than the rate below says; calibrate on other images"
        )


async def _calibrate(
    config: Config,
    name: str,
    model: Model,
    x: Tensor,
    seed: int,
    console: Console,
    networks: Mapping[str, weights.Trained],
) -> tuple[Result, str]:
    upstream = Upstream(config.upstream, max_message_bytes=config.max_message_bytes)
    try:
        metadata, described = await describe(upstream, name)
        spec = resolve(name, model, metadata, described)
        with _progress(console) as progress:
            result = await calibrate(
                upstream, spec, model, x, seed=seed, progress=progress, networks=networks
            )
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


def _report(console: Console, result: Result, fpr: float, samples: int) -> None:
    table = Table(title=f"Thresholds at a false-positive rate of {fpr:.2%}, {samples} images")
    for column in ("evidence", "detectors", "threshold", "rate at most (95 %)", "worst group"):
        table.add_column(column)
    for level, names in result.levels.items():
        try:
            threshold = result.calibration.rule([names], fpr).threshold
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
