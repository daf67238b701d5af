"""Several recipes into one folder: what is kept, what is made anew, what is left unfinished."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

import detectors
import purifiers
from proxy import weights
from purifiers.base import Kind, Purifier
from tests.images import benign
from tests.learning import AnswerRecipe, DigitsLike, RepairRecipe, SmoothRecipe
from tests.proxy.test_tensors import SPEC
from tests.test_contract import EACH
from tuning.fitting import Fitting, Source
from tuning.local_model import LocalModel

CPU = torch.device("cpu")
X = torch.from_numpy(benign(80, seed=4))


@pytest.fixture
def progress() -> Iterator[Progress]:
    with Progress(disable=True) as shown:
        yield shown


def source(digest: str = "ab", copy: str = "cd") -> Source:
    model = DigitsLike().requires_grad_(False)
    return Source(X, digest, model(X), LocalModel(model, copy, SPEC, CPU))


def fitting(
    folder: Path,
    progress: Progress,
    *,
    seed: int = 0,
    scale: float = 1,
    given: Source | None = None,
) -> Fitting:
    return Fitting(
        *(folder, given or source()), seed=seed, steps_scale=scale, device=CPU, progress=progress
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "weights").iterdir())}


def test_every_recipe_gets_its_network(tmp_path: Path, progress: Progress) -> None:
    recipes = [SmoothRecipe(), AnswerRecipe(), RepairRecipe()]
    outcomes = fitting(tmp_path, progress).run(recipes)
    assert [(o.recipe, o.steps) for o in outcomes] == [
        ("smooth", 12),
        ("answer", 5),
        ("repair", 12),
    ]
    assert all(o.loss is not None and o.seconds is not None for o in outcomes)
    there = weights.read(tmp_path)
    assert set(there) == {"smooth", "answer", "repair"}
    plan = there["repair"].plan
    assert (plan.guided_by, plan.samples, plan.shape) == ("cd", 80, (3, 32, 32))
    assert (plan.classes, plan.batch, plan.data_sha256) == (10, 16, "ab")
    assert there["smooth"].plan.guided_by is None
    assert not [name for name in contents(tmp_path) if name.endswith("partial")]


def test_every_registered_recipe_can_be_trained(tmp_path: Path, progress: Progress) -> None:
    parts = [
        *(detectors.build(*spec) for spec in EACH),
        *(purifiers.build(name) for name, each in purifiers.PURIFIERS.items() if _suits(each)),
    ]
    recipes = [users[0].recipe for users in weights.users(parts).values()]
    assert {"denoiser", "guided_denoiser"} <= {recipe.name for recipe in recipes}
    outcomes = fitting(tmp_path, progress, scale=1e-6).run(recipes)
    assert [(o.recipe, o.steps) for o in outcomes] == [(recipe.name, 1) for recipe in recipes]
    weights.give(parts, weights.load(tmp_path, "m", parts, CPU))


def _suits(purifier: type[Purifier]) -> bool:
    """Whether it can be made without parameters and takes images."""
    parameters = inspect.signature(purifier).parameters.values()
    return Kind.IMAGE in purifier.kinds and all(p.default is not p.empty for p in parameters)


def test_what_is_there_is_kept_unless_the_plan_differs(tmp_path: Path, progress: Progress) -> None:
    recipes = [SmoothRecipe(), RepairRecipe()]
    fitting(tmp_path, progress).run(recipes)
    before = contents(tmp_path)
    kept = fitting(tmp_path, progress).run(recipes)
    assert [o.seconds for o in kept] == [None, None]
    assert contents(tmp_path) == before
    other_copy = fitting(tmp_path, progress, given=source(copy="ef")).run(recipes)
    assert [o.recipe for o in other_copy if o.seconds is not None] == ["repair"]
    for changed in (
        fitting(tmp_path, progress, seed=1),
        fitting(tmp_path, progress, scale=0.5),
        fitting(tmp_path, progress, given=source(digest="99")),
    ):
        assert changed.run([SmoothRecipe()])[0].seconds is not None


def test_the_seed_decides(tmp_path: Path, progress: Progress) -> None:
    blobs = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        fitting(tmp_path / folder, progress, seed=seed).run([RepairRecipe()])
        blobs.append(contents(tmp_path / folder)["repair.safetensors"])
    assert blobs[0] == blobs[1] != blobs[2]


def test_interrupted_it_goes_on_to_the_same_end(tmp_path: Path, progress: Progress) -> None:
    class Interrupted(RepairRecipe):
        interrupt_at = 7

    # The same recipe to the plan, as an interruption is no part of it.
    Interrupted.__qualname__, Interrupted.__module__ = "RepairRecipe", RepairRecipe.__module__
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fitting(tmp_path / "a", progress).run([SmoothRecipe(), Interrupted()])
    assert signal.getsignal(signal.SIGINT) is before
    left = contents(tmp_path / "a")
    assert set(left) == {
        "attacked.partial",
        "repair.partial",
        "smooth.safetensors",
        "weights.json",
    }
    recipe = RepairRecipe()
    outcomes = fitting(tmp_path / "a", progress).run([SmoothRecipe(), recipe])
    assert [o.seconds is None for o in outcomes] == [True, False]
    assert recipe.calls == 12 - 7
    fitting(tmp_path / "b", progress).run([SmoothRecipe(), RepairRecipe()])
    for name in ("smooth.safetensors", "repair.safetensors"):
        assert contents(tmp_path / "a")[name] == contents(tmp_path / "b")[name]
