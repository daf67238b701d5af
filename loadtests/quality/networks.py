"""The networks of a study, trained as `breakwater fit` does.

Networks that learn from attacks are trained several times with kinds of attack left out, so that
every attack of the suite meets some that have never seen its kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor, nn

from detectors.base import Detector
from loadtests.quality.images import Images, Sizes
from proxy.weights import Plan, users
from purifiers.base import Purifier
from purifiers.learned import Recipe
from tuning import attacks
from tuning.attacked_images import Attacked
from tuning.attacks import FAMILIES, attack
from tuning.batches import batch_of, seeded
from tuning.evaluate.store import Store, code
from tuning.lessons import Material, course
from tuning.train import Checkpoint, train

SHAPE = (3, 32, 32)
CLASSES = 10
_EACH = 1280
"""Attacked images of each kind to train on."""
_BLOCK = 64

GRADIENT = "gradient"
"""The variant that knows gradient attacks only."""
VARIANTS: dict[str, tuple[str, ...]] = {
    GRADIENT: ("linf", "l2"),
    "no_linf": tuple(kind for kind in FAMILIES if kind != "linf"),
    "no_l2": tuple(kind for kind in FAMILIES if kind != "l2"),
}
"""Variants of networks that learn from attacks -> the kinds they are trained on."""
UNSEEN = {
    "gradient_linf": "no_linf",
    "minimal_l2": "no_l2",
    "query": "no_l2",
    "block": GRADIENT,
    "patch": GRADIENT,
    "smooth": GRADIENT,
}
"""Family of an attack in the suite -> the variant that was trained on nothing like it."""


@dataclass
class Networks:
    """Trains networks when they are first asked for, and keeps them in the store.

    Args:
        images: what to train on, and against which model.
        sizes: share of the recipes' steps.
    """

    images: Images
    sizes: Sizes
    store: Store
    progress: Progress

    def equip(self, parts: Sequence[Detector | Purifier], variant: str = GRADIENT) -> None:
        """Give parts, and those they consist of, their trained networks.

        Args:
            variant: of networks that learn from attacks.
        """
        for learned in users(parts).values():
            recipe = learned[0].recipe
            network = self.network(recipe, variant if recipe.guided else "")
            for part in learned:
                part.use(network)

    def network(self, recipe: Recipe, variant: str) -> nn.Module:
        """One trained network, in evaluation mode."""
        network = recipe.build(SHAPE, CLASSES)
        steps = max(1, round(recipe.steps * self.sizes.steps))
        key = f"{variant} {steps} {self.sizes.train} {code(recipe, network)}"
        state = self.store.tensors(
            f"network-{recipe.name}{variant and '-'}{variant}",
            key,
            lambda: self._trained(recipe, variant, steps),
        )
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)

    def _trained(self, recipe: Recipe, variant: str, steps: int) -> Mapping[str, Tensor]:
        plan = Plan(
            recipe=recipe.name,
            data_sha256=f"{variant} {code(recipe)}",
            samples=len(self.images.train),
            shape=SHAPE,
            classes=CLASSES,
            seed=0,
            steps=steps,
            batch=batch_of(recipe, SHAPE),
        )
        device = torch.device("cpu")
        lessons = course(recipe, self._material(recipe, variant), plan.batch, plan.seed, device)
        task = self.progress.add_task(f"training {recipe.name} {variant}", total=steps)
        path = self.store.folder / f"{recipe.name}-{variant}.partial"
        checkpoint = Checkpoint(path, plan)
        network = train(
            recipe,
            lessons,
            plan,
            checkpoint,
            device=device,
            on_step=lambda step, loss: self.progress.update(task, completed=step),
        )
        checkpoint.remove()
        return network.state_dict()

    def _material(self, recipe: Recipe, variant: str) -> Material:
        x = self.images.train
        answers = None
        if recipe.needs_answers:
            answers = self.store.tensors("train-answers", str(len(x)), self._answers)["answers"]
        attacked = None
        if recipe.guided:
            pools = [self._pool(kind) for kind in VARIANTS[variant]]
            attacked = Attacked(
                torch.cat([pool["of"] for pool in pools]),
                torch.cat([pool["pixels"] for pool in pools]),
            )
        return Material(x, answers, attacked, self.images.model)

    def _answers(self) -> dict[str, Tensor]:
        parts = self.images.train.split(200)
        with torch.inference_mode():
            return {"answers": torch.cat([self.images.model(part) for part in parts])}

    def _pool(self, kind: str) -> dict[str, Tensor]:
        count = max(_BLOCK, round(_EACH * min(1.0, 4 * self.sizes.steps)))
        return self.store.tensors(
            f"training-attacks-{kind}",
            f"{count} {inspect.getsource(attacks)}",
            lambda: self._make(kind, count),
        )

    def _make(self, kind: str, count: int) -> dict[str, Tensor]:
        task = self.progress.add_task(f"attacks to train on: {kind}", total=count)
        of = torch.randperm(len(self.images.train), generator=seeded("of", kind))[:count]
        blocks = []
        for number, rows in enumerate(of.split(_BLOCK)):
            x = self.images.train[rows]
            made = attack(self.images.model, x, seeded(kind, number), families=[kind])
            blocks.append((made * 255).round().to(torch.uint8))
            self.progress.advance(task, len(rows))
        return {"of": of, "pixels": torch.cat(blocks)}
