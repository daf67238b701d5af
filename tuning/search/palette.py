"""A basis made here: a palette calibrated on one part of the data, and recorded on others."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

import purifiers
from proxy import artifacts, weights
from proxy.adapt import resolve
from proxy.config import Model, Part
from proxy.defences import describe
from proxy.devices import use_device
from proxy.errors import ConfigError, ProxyError
from proxy.parts import build_detectors, build_purifiers
from proxy.upstream import Upstream
from purifiers import Chain
from tuning import dataset
from tuning.batches import seeded
from tuning.evaluate.recording import about_of, record
from tuning.evaluate.recording import evaluation as stored
from tuning.evaluate.sizes import Sizes, sized
from tuning.evaluate.subject import Subject
from tuning.fit import Result, Samples, calibrate, images_needed
from tuning.narrow import Whole
from tuning.search.basis import Basis, Given

PALETTE = ("high_frequency", "srm", "residual", "margin", "energy", "jpeg_view", "mirror_view")
"""What is weighed beside the configured detectors: untrained ones, for images."""
CHAINS: tuple[tuple[Part, ...], ...] = (
    (Part(name="jpeg", params={"quality": 75}),),
    (Part(name="median"),),
)
"""Purifiers that are weighed beside the configured ones."""
WORK = "work"
_ASKED = 3
"""Times the attacked images that an evaluation asks about: what it may have looked at."""
_CALIBRATED = 2 / 3
"""Share of the images no evaluation looks at that a calibration made here is of."""


def make(given: Given, fpr: float, progress: Progress) -> Basis:
    """Calibrate the palette, have it scored, and keep images back.

    Args:
        fpr: the largest false-positive rate that is to be possible.

    Raises:
        ConfigError: too little data, or something does not fit; says what to do.
    """
    folder = given.out / WORK / "calibration"
    model = _palette(given).model_copy(update={"calibration": folder, "fpr": fpr})
    data = dataset.load(given.data, model.kind)
    sizes = sized(quick=given.quick)
    part, fresh = _parts(len(data.x), sizes, given.seed, fpr, given.data)
    _calibrate(given, model, folder, data, part, progress)
    models = {**given.config.models, given.name: model}
    work = (given.evaluation or given.out) / WORK
    subject = Subject.load(
        given.config.model_copy(update={"models": models}),
        given.name,
        given.data,
        model_file=given.model_file,
        work=work,
        seed=given.seed,
        progress=progress,
    )
    chains = _chains(model)
    built = {name: model.model_copy(update={"purifiers": made}) for name, made in chains.items()}
    ways = {name: build_purifiers(each) for name, each in built.items()}
    for each in ways.values():
        weights.give(each, subject.artifact.networks)
    recording = record(subject, sizes, ways=ways)
    about = {**about_of(recording), "model": given.name, "seed": given.seed}
    return Basis(
        Whole(folder, given.name, model),
        subject.artifact.calibration,
        stored(recording, subject.rule, about, {"model": given.name, "rows": []}),
        chains,
        subject.spec,
        data.x[fresh],
        int(subject.y.max()) + 1,
    )


def _palette(given: Given) -> Model:
    """The configured model with every detector that is to be weighed."""
    model = given.model
    own = {part.name: part for part in model.detectors}
    extra = given.detectors or (*own, *(PALETTE if model.kind == "image" else ()))
    made = tuple(own.get(name, Part(name=name)) for name in dict.fromkeys(extra))
    try:
        palette = model.model_copy(update={"detectors": made})
        build_detectors(palette)
    except ValueError as error:
        raise ConfigError(f"--detectors: {error}") from error
    return palette


def _chains(model: Model) -> dict[str, tuple[Part, ...]]:
    """Way to answer -> its purifiers, the configured first; each once."""
    wanted = [model.purifiers, *(CHAINS if model.kind == "image" else ())]
    found: dict[str, tuple[Part, ...]] = {}
    for chain in filter(None, wanted):
        built = [purifiers.build(part.name, part.params) for part in chain]
        found.setdefault(Chain(built).key[:100], chain)
    return found


def _parts(count: int, sizes: Sizes, seed: int, fpr: float, data: Path) -> tuple[Tensor, Tensor]:
    """Rows to calibrate on, and rows nobody sees before the policy is checked.

    Both leave alone what the evaluation deals out of the same file (`tuning.evaluate.samples`).
    """
    order = torch.randperm(count, generator=seeded(seed, "split"))
    free = order[min(sizes.benign, count // 2) + _ASKED * sizes.attacked :]
    cut = round(len(free) * _CALIBRATED)
    needed = images_needed(fpr)
    if cut < needed:
        whole = count - len(free) + round(needed / _CALIBRATED) + 1
        raise ConfigError(
            f"{data} has {count} samples: to calibrate on some of them at a false-positive rate of "
            f"{fpr:g}, and to evaluate on others, takes about {whole}; or give an evaluation of "
            "the configured detectors with --evaluation"
        )
    return free[:cut], free[cut:]


def _calibrate(
    given: Given,
    model: Model,
    folder: Path,
    data: dataset.Dataset,
    part: Tensor,
    progress: Progress,
) -> None:
    """Calibrate the palette, unless that was done before."""
    origin = f"{data.sha256} seed {given.seed}"
    try:
        there = artifacts.load(folder, given.name, model, torch.device("cpu")).provenance
        if there.data_sha256 == origin and there.samples == len(part):
            return
    except ConfigError:
        pass  # missing, or of another palette: it is made anew
    scoring = build_detectors(model)
    trained = given.model.calibration or folder
    networks = weights.load(trained, given.name, scoring, use_device("auto"))

    async def made() -> tuple[Result, str]:
        config = given.config
        upstream = Upstream(
            config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
        )
        try:
            metadata, described = await describe(upstream, given.name)
            spec = resolve(given.name, model, metadata, described)
            result = await calibrate(
                upstream,
                spec,
                model,
                Samples(data.x[part]),
                seed=given.seed,
                progress=progress,
                networks=networks,
            )
        except ConfigError:
            raise
        except ProxyError as error:
            raise ConfigError(
                f"the model {given.name} cannot be asked at {given.config.upstream}: {error}; "
                "is Triton running there?"
            ) from error
        finally:
            await upstream.close()
        return result, ",".join(metadata.versions)

    result, version = asyncio.run(made())
    artifacts.save(
        folder,
        calibration=result.calibration,
        states={d.name: d.state() for d in result.detectors},
        provenance=artifacts.Provenance(
            model=given.name,
            model_version=version,
            data_sha256=origin,
            samples=len(part),
            groups=tuple(result.calibration.groups),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            defence=artifacts.defence_of(model),
            weights=weights.digests(scoring, networks),
        ),
        reference=result.reference,
    )
