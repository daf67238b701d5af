"""`breakwater fit`: train the networks that a model's detectors and purifiers use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from proxy import weights
from proxy.adapt import ModelSpec, resolve
from proxy.config import Config, Model
from proxy.defences import describe
from proxy.devices import use_device
from proxy.errors import ConfigError, ProxyError
from proxy.parts import build_detectors, build_purifiers
from proxy.upstream import Upstream
from purifiers.learned import Learned, Recipe
from tuning import dataset, local_model
from tuning.batches import affordable
from tuning.fitting import Fitting, Outcome, Source
from tuning.local_model import LocalModel
from tuning.model_client import ModelClient, as_seen

_ASKED = 200
"""Images the served model is asked about at least: for the number of its classes, and to compare
the local copy with."""
_BATCH = 64

Needed = Mapping[str, tuple[Learned, ...]]
"""Recipe's name -> the parts that use its network."""


def run(
    config: Config,
    name: str,
    data: Path,
    *,
    model_file: Path | None = None,
    only: Sequence[str] = (),
    steps_scale: float = 1.0,
    seed: int = 0,
    out: Path | None = None,
    console: Console | None = None,
) -> int:
    """Train what a model's parts need, and write the weights; returns the exit status.

    Networks already there, of the same data, seed and steps, are kept; a training that was
    interrupted goes on.

    Raises:
        ConfigError: nothing is to be trained, or not with what is given; says what to do.
    """
    console = console or Console(stderr=True)
    threads = torch.get_num_threads()  # before `use_device`, which leaves one
    model = _model(config, name)
    folder = out or model.calibration
    if folder is None:
        raise ConfigError("say where to write with --out DIR")
    if not steps_scale > 0:
        raise ConfigError(f"--steps-scale must be over 0, not {steps_scale:g}")
    needed = weights.users([*build_detectors(model), *build_purifiers(model)])
    recipes = _chosen(name, needed, only, has_copy=model_file is not None)
    device = use_device(config.device)
    images = dataset.load(data, model.kind)
    with _progress(console) as progress:
        known = asyncio.run(_ask(config, name, model, images.x, recipes, progress))
        copy = None
        if model_file is not None and any(recipe.guided for recipe in recipes):
            copy = local_model.load(model_file, known.spec, device)
            _compare(copy, known, device)
        source = Source(known.x, images.sha256, known.answers, copy)
        fitting = Fitting(
            *(folder, source),
            seed=seed,
            steps_scale=steps_scale,
            device=device,
            progress=progress,
        )
        try:
            with _threads(threads):
                outcomes = fitting.run(recipes)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on from here")
            return 130
    _report(console, outcomes, len(images.x), folder)
    return 0


def _model(config: Config, name: str) -> Model:
    model = config.models.get(name)
    if model is None:
        known = ", ".join(config.models) or "none"
        raise ConfigError(f"no model {name!r} in the configuration (there: {known})")
    return model


def _chosen(model: str, needed: Needed, only: Sequence[str], *, has_copy: bool) -> list[Recipe]:
    """The recipes to train, in the order of the configuration."""
    if not needed:
        raise ConfigError(
            f"models.{model} lists no detectors or purifiers that use a trained network: there is "
            "nothing to fit"
        )
    names = {recipe: {recipe, *(p.name for p in parts)} for recipe, parts in needed.items()}
    unknown = sorted(set(only) - set().union(*names.values()))
    if unknown:
        valid = ", ".join(sorted(set().union(*names.values())))
        raise ConfigError(f"--only {' '.join(unknown)}: there are {valid}")
    chosen = {r: needed[r][0].recipe for r in needed if not only or names[r] & set(only)}
    guided = [name for name, recipe in chosen.items() if recipe.guided]
    if guided and not has_copy:
        rest = [name for name in chosen if name not in guided]
        raise ConfigError(
            f"{weights.listed(needed, guided)} trained against a local copy of the model: give one "
            "with --model-file FILE (.pt2, .pt or .onnx)"
            + (f", or train only the others with --only {' '.join(rest)}" if rest else "")
        )
    return list(chosen.values())


@dataclass(frozen=True, slots=True)
class _Known:
    """What the served model says."""

    spec: ModelSpec
    x: Tensor
    """The images as the proxy will read them, (N, C, H, W) in [0, 1]."""
    answers: Tensor | None
    """To all of `x` if some recipe needs them, else to the first `_ASKED`; None where the model
    gives none."""


async def _ask(
    config: Config,
    name: str,
    model: Model,
    x: Tensor,
    recipes: Sequence[Recipe],
    progress: Progress,
) -> _Known:
    upstream = Upstream(
        config.upstream, max_message_bytes=config.max_message_bytes, tls=config.upstream_tls
    )
    try:
        spec = resolve(name, model, *await describe(upstream, name))
        seen = as_seen(spec, x)
        if not _can_ask(spec, recipes):
            return _Known(spec, seen, None)
        asked = seen if any(recipe.needs_answers for recipe in recipes) else seen[:_ASKED]
        task = progress.add_task("asking", total=len(asked))
        answers = await ModelClient(upstream, spec).answers(
            asked, lambda count: progress.advance(task, count)
        )
        return _Known(spec, seen, answers)
    except ProxyError as error:
        raise ConfigError(
            f"the model {name} cannot be asked at {config.upstream}: {error}; "
            "is Triton running there?"
        ) from error
    finally:
        await upstream.close()


def _can_ask(spec: ModelSpec, recipes: Sequence[Recipe]) -> bool:
    """Whether the model answers queries (raises ConfigError if recipes need that and it cannot)."""
    if spec.output is not None and spec.can_query and not spec.ignored_inputs:
        return True
    needing = [recipe.name for recipe in recipes if recipe.needs_answers or recipe.guided]
    if needing:
        raise ConfigError(
            f"{', '.join(needing)}: training needs the model's answers, and {spec.model} gives "
            "none to a query of an image alone"
        )
    return False


def _compare(copy: LocalModel, known: _Known, device: torch.device) -> None:
    assert known.answers is not None  # noqa: S101 (guided recipes are refused without)
    answers = known.answers[:_ASKED]
    x = known.x[: len(answers)].to(device)
    copy.check(x, answers, affordable(_BATCH, tuple(x.shape[1:])))


def _report(console: Console, outcomes: Sequence[Outcome], samples: int, folder: Path) -> None:
    table = Table(title=f"Networks trained on {samples} images")
    for column in ("network", "steps", "seconds", "loss at the end"):
        table.add_column(column)
    for outcome in outcomes:
        taken = "kept as it was" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        loss = "" if outcome.loss is None else f"{outcome.loss:.4g}"
        table.add_row(outcome.recipe, str(outcome.steps), taken, loss)
    console.print(table)
    console.print(f"written to {folder / weights.FOLDER}; now calibrate, best on other images")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Training uses every core torch was given; what scores in this process has one again."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
