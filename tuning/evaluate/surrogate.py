"""A model of the attacker's own, trained on what the served model answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detectors.surrogate_network import SurrogateRecipe
from proxy.weights import Plan
from tuning.batches import batch_of
from tuning.evaluate.network import Network
from tuning.evaluate.store import code, digest
from tuning.evaluate.subject import Subject
from tuning.lessons import Material, course
from tuning.train import Checkpoint, train


def surrogate_of(subject: Subject, x: Tensor, steps: int) -> tuple[nn.Module, str]:
    """The surrogate given, or one trained here by the recipe of the detectors of that name.

    Args:
        x: what the attacker asks about, (N, C, H, W); none of it is attacked.
        steps: batches to train on.

    Returns:
        The network, images in [0, 1] to logits, and what tells it from others.
    """
    if subject.surrogate is not None:
        return Network(subject.surrogate), subject.surrogate.sha256
    recipe = SurrogateRecipe()
    answers = subject.answers(x, "asking for a surrogate")
    plan = Plan(
        recipe=recipe.name,
        data_sha256=digest(x, answers),
        samples=len(x),
        shape=subject.shape,
        classes=answers.shape[1],
        seed=subject.seed,
        steps=steps,
        batch=batch_of(recipe, subject.shape),
    )
    key = f"{plan.model_dump_json()} {code(recipe)}"
    network = recipe.build(plan.shape, plan.classes)
    state = subject.store.tensors(
        "surrogate", key, lambda: _trained(subject, recipe, plan, Material(x, answers))
    )
    network.load_state_dict(state)
    return network.eval().requires_grad_(False), digest(key)


def _trained(
    subject: Subject, recipe: SurrogateRecipe, plan: Plan, material: Material
) -> dict[str, Tensor]:
    task = subject.progress.add_task("training a surrogate", total=plan.steps)
    device = torch.device("cpu")
    network = train(
        recipe,
        course(recipe, material, plan.batch, plan.seed, device),
        plan,
        Checkpoint(subject.store.folder / "surrogate.partial", plan),
        device=device,
        on_step=lambda step, _: subject.progress.update(task, completed=step),
    )
    return network.state_dict()
