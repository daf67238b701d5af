"""Trains recipes one after the other into one folder of weights, and goes on where it stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import torch
from rich.progress import Progress
from torch import Tensor

from proxy import weights
from purifiers.learned import Recipe
from tuning import attacked_images, batches, lessons
from tuning.local_model import LocalModel
from tuning.train import Checkpoint, train


@dataclass(frozen=True, slots=True)
class Source:
    """What networks are trained from."""

    x: Tensor
    """Benign samples as the proxy reads them, (N, C, H, W) float32 in [0, 1]."""
    data_sha256: str
    answers: Tensor | None
    """The served model's, at least to the first few; None where it gives none."""
    copy: LocalModel | None
    """Given where a guided recipe is to be trained."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one recipe ended."""

    recipe: str
    steps: int
    seconds: float | None
    """Of this run; None where the network was there already."""
    loss: float | None
    """Of the last batches."""


class Fitting:
    """One run of `breakwater fit`.

    Args:
        folder: of the calibration; the weights go into a folder of their own there.
        source: what to train from.
        seed: of everything random.
        steps_scale: multiplies the steps of every recipe.
        device: where to train.
        progress: gets a task for each recipe.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        *,
        seed: int,
        steps_scale: float,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._source = source
        self._seed = seed
        self._steps_scale = steps_scale
        self._device = device
        self._progress = progress

    def run(self, recipes: Sequence[Recipe]) -> list[Outcome]:
        """Train all that are not there yet, under the plan they would have now.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; what is unfinished was kept.
        """
        plans = {recipe.name: self._plan(recipe) for recipe in recipes}
        there = weights.read(self._folder)
        kept = [r.name for r in recipes if r.name in there and there[r.name].plan == plans[r.name]]
        outcomes = [Outcome(name, plans[name].steps, None, None) for name in kept]
        due = [recipe for recipe in recipes if recipe.name not in kept]
        (self._folder / weights.FOLDER).mkdir(parents=True, exist_ok=True)
        with _stoppable() as is_stopped:
            material = self._material([plans[r.name] for r in due if r.guided], is_stopped)
            outcomes += [self._train(r, plans[r.name], material, is_stopped) for r in due]
        self._unfinished("attacked").unlink(missing_ok=True)
        return outcomes

    def _plan(self, recipe: Recipe) -> weights.Plan:
        source = self._source
        shape = tuple(source.x.shape[1:])
        return weights.Plan(
            recipe=f"{type(recipe).__module__}.{type(recipe).__qualname__}",
            data_sha256=source.data_sha256,
            samples=len(source.x),
            shape=shape,
            classes=0 if source.answers is None else source.answers.shape[1],
            seed=self._seed,
            steps=max(1, round(recipe.steps * self._steps_scale)),
            batch=batches.batch_of(recipe, shape),
            guided_by=source.copy.sha256 if recipe.guided and source.copy else None,
        )

    def _unfinished(self, name: str) -> Path:
        return self._folder / weights.FOLDER / f"{name}.partial"

    def _material(
        self, guided: Sequence[weights.Plan], is_stopped: Callable[[], bool]
    ) -> lessons.Material:
        source = self._source
        if not guided or source.copy is None:
            return lessons.Material(source.x, source.answers)
        draws = max(plan.steps * plan.batch for plan in guided)
        count = attacked_images.needed(tuple(source.x.shape[1:]), draws)
        task = self._progress.add_task("attacking", total=count)
        attacked = attacked_images.make(
            source.copy,
            source.x,
            count,
            self._unfinished("attacked"),
            about={"model": source.copy.sha256, "data": source.data_sha256},
            seed=self._seed,
            device=self._device,
            on_progress=lambda made: self._progress.update(task, completed=made),
            is_stopped=is_stopped,
        )
        return lessons.Material(source.x, source.answers, attacked, source.copy)

    def _train(
        self,
        recipe: Recipe,
        plan: weights.Plan,
        material: lessons.Material,
        is_stopped: Callable[[], bool],
    ) -> Outcome:
        task = self._progress.add_task(recipe.name, total=plan.steps)
        started = time.monotonic()
        losses: list[float] = []

        def on_step(step: int, loss: float | None) -> None:
            self._progress.update(task, completed=step)
            if loss is not None:
                losses.append(loss)

        checkpoint = Checkpoint(self._unfinished(recipe.name), plan)
        network = train(
            recipe,
            lessons.course(recipe, material, plan.batch, plan.seed, self._device),
            plan,
            checkpoint,
            device=self._device,
            on_step=on_step,
            is_stopped=is_stopped,
        )
        date = datetime.now(UTC).isoformat(timespec="seconds")
        weights.save(self._folder, recipe.name, network, plan, date)
        checkpoint.remove()
        seconds, last = time.monotonic() - started, losses[-10:]
        return Outcome(recipe.name, plan.steps, seconds, sum(last) / len(last) if last else None)


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; a second one ends the process."""
    wishes: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        wishes.append(number)
        signal.signal(number, before[number])

    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(wishes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
