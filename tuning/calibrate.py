"""`breakwater calibrate`: fit the detectors and set the threshold, on benign data only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from detectors.rule import CalibrationError
from proxy import artifacts, parts, weights
from proxy.adapt import resolve
from proxy.config import Config, InputKind, Model
from proxy.defences import describe
from proxy.devices import use_device
from proxy.errors import ConfigError, ProxyError
from proxy.lineage import Lineage
from proxy.upstream import Upstream
from tuning import dataset, local_model
from tuning.data_facts import summary, warnings
from tuning.fit import Result, Samples, calibrate, images_needed
from tuning.lineage import Origin, fingerprints
from tuning.lineage import describe as describe_data


def run(
    config: Config,
    name: str,
    data: Path,
    *,
    fpr: float | None = None,
    out: Path | None = None,
    seed: int = 0,
    groups: Sequence[tuple[str, Path]] = (),
    model_file: Path | None = None,
    origin: Origin | None = None,
    console: Console | None = None,
) -> int:
    """Calibrate one model and write the result; returns the exit status.

    Args:
        fpr: wanted false-positive rate; the configuration's when missing.
        out: folder to write to; the configuration's when missing.
        seed: of the benign variations and splits.
        groups: benign groups of the user's own, name and data file.
        model_file: local copy of the model, to learn a score from attacks on it as well.
        origin: what a person says of the data.

    Raises:
        ConfigError: nothing can be calibrated, or not to the wanted rate; says what to do.
    """
    console = console or Console(stderr=True)
    model = _model(config, name)
    folder = out or model.calibration
    if folder is None:
        raise ConfigError("say where to write with --out DIR")
    wanted = fpr if fpr is not None else model.fpr
    model = model.model_copy(update={"fpr": wanted})
    images = _images(data, wanted, model.kind)
    scoring = parts.build_detectors(model)
    networks = weights.load(folder, name, scoring, use_device("auto"))
    _warn_of_same_images(console, networks, images)
    own = {group: _images(path, wanted, model.kind) for group, path in groups}
    lineage = describe_data(data, images, kind=model.kind, origin=origin, seed=seed)
    _tell_of_data(console, lineage, images_needed(wanted))
    given = Samples(images.x, {group: samples.x for group, samples in own.items()})
    result, version = asyncio.run(
        _calibrate(config, name, model, given, model_file, seed, console, networks)
    )
    _report(console, result, wanted, f"{len(images.x)} {model.kind}s")
    if result.validation:
        _report_learned(console, result, wanted)
    artifacts.save(
        folder,
        calibration=result.calibration,
        states={d.name: d.state() for d in result.detectors},
        provenance=artifacts.Provenance(
            model=name,
            model_version=version,
            data_sha256=" ".join([images.sha256, *(samples.sha256 for samples in own.values())]),
            samples=len(images.x),
            groups=tuple(result.calibration.groups),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            defence=artifacts.defence_of(model),
            weights=weights.digests(scoring, networks),
            data=lineage,
            group_data={
                group: describe_data(path, own[group], kind=model.kind, seed=seed)
                for group, path in groups
            },
        ),
        samples=fingerprints(images.x, *(samples.x for samples in own.values()), kind=model.kind),
        reference=result.reference,
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


def _images(data: Path, fpr: float, kind: InputKind) -> dataset.Dataset:
    needed = images_needed(fpr)
    images = dataset.load(data, kind)
    if len(images.x) < needed:
        raise ConfigError(
            f"{data} has {len(images.x)} {kind}s; a false-positive rate of {fpr:g} needs at "
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


def _tell_of_data(console: Console, lineage: Lineage, needed: int) -> None:
    console.print(f"data: {escape(summary(lineage))}", highlight=False)
    for text in warnings(lineage, needed):
        console.print(f"warning: {escape(text)}", highlight=False)


async def _calibrate(
    config: Config,
    name: str,
    model: Model,
    samples: Samples,
    model_file: Path | None,
    seed: int,
    console: Console,
    networks: Mapping[str, weights.Trained],
) -> tuple[Result, str]:
    upstream = Upstream(
        config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
    )
    try:
        metadata, described = await describe(upstream, name)
        spec = resolve(name, model, metadata, described)
        if model_file is not None:
            copy = local_model.load(model_file, spec, use_device("auto"))
            samples = replace(samples, copy=copy)
        with _progress(console) as progress:
            result = await calibrate(
                upstream, spec, model, samples, seed=seed, progress=progress, networks=networks
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


def _report(console: Console, result: Result, fpr: float, samples: str) -> None:
    table = Table(title=f"Thresholds at a false-positive rate of {fpr:.2%}, {samples}")
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


def _report_learned(console: Console, result: Result, fpr: float) -> None:
    """What the learned score makes of kinds of attack it has not seen."""
    table = Table(title=f"Detected at {fpr:.2%}: kinds of attack the learned score has not seen")
    for column in ("evidence", "kind of attack", "without it", "with it"):
        table.add_column(column)
    for row in result.validation:
        table.add_row(row.level, row.family, f"{row.without:.0%}", f"{row.left_out:.0%}")
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
