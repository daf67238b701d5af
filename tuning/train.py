"""The training loop: seeded, resumable, and the same on every kind of device."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from proxy.errors import ConfigError
from proxy.files import write_whole
from proxy.weights import Plan
from purifiers.learned import Recipe
from tuning.batches import seeded
from tuning.lessons import Course

EVERY = 50
"""Steps between two checkpoints: about half a minute of work."""
_WARM_UP = 0.3
_FIRST = 1 / 25
"""Share of the steps in which the learning rate rises, and what it rises from as a share of the
peak: the one-cycle policy of Smith and Topin 2017 (arXiv 1708.07120)."""

_NETWORK, _ADAM = "network/", "adam/"


class Checkpoint:
    """A training that is not finished, in one file. Never pickle.

    Args:
        path: of the file; its folder must exist.
        plan: of the training. A file of another plan is not gone on with.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path = path
        self._plan = plan

    def save(self, step: int, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Keep the state after so many steps."""
        tensors = {_NETWORK + key: value for key, value in network.state_dict().items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{_ADAM}{index}/{key}": value for key, value in state.items()}
        whole = {key: value.detach().cpu().clone() for key, value in tensors.items()}
        about = {"step": str(step), "plan": self._plan.model_dump_json()}
        write_whole(self._path, save_tensors(whole, metadata=about))

    def restore(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Go on where it was interrupted; returns the steps done, 0 where there is nothing."""
        try:
            with safe_open(self._path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if json.loads(about.get("plan", "{}")) != json.loads(self._plan.model_dump_json()):
                return 0
            network.load_state_dict(_under(tensors, _NETWORK))
            step = int(about["step"])
        # Made by another version, or damaged: what can be made anew is not worth an error.
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            return 0
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, _ADAM).items():
            index, _, key = name.partition("/")
            states.setdefault(int(index), {})[key] = value
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": states, "param_groups": groups})
        return step

    def remove(self) -> None:
        """Forget it: the training is finished."""
        self._path.unlink(missing_ok=True)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def train(
    recipe: Recipe,
    course: Course,
    plan: Plan,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    on_step: Callable[[int, float | None], None] = lambda step, loss: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> nn.Module:
    """Train a network to the end of its plan and return it in evaluation mode.

    The result depends on recipe, plan and lessons alone, wherever it was interrupted (bit for bit
    on one machine with one number of threads).

    Args:
        on_step: told the steps done and, now and then, the loss.
        is_stopped: asked after every step; when true, the state is kept and the loop left.

    Raises:
        KeyboardInterrupt: it was stopped.
        ConfigError: the loss is no longer finite.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seeded(plan.seed, recipe.name, "network").initial_seed())
        network = recipe.build(plan.shape, plan.classes).to(device).train()
        optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate)
        done = checkpoint.restore(network, optimiser)
        on_step(done, None)
        for step in range(done, plan.steps):
            loss = _step(recipe, network, optimiser, course, plan, step)
            on_step(step + 1, loss if loss is None else _finite(loss, recipe, step))
            if is_stopped():
                checkpoint.save(step + 1, network, optimiser)
                raise KeyboardInterrupt
            if (step + 1) % EVERY == 0:
                checkpoint.save(step + 1, network, optimiser)
    return network.eval()


def _step(
    recipe: Recipe,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    course: Course,
    plan: Plan,
    step: int,
) -> float | None:
    """One batch; the loss every tenth step, since reading it waits for the device."""
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate * one_cycle(step / plan.steps)
    generator = seeded(plan.seed, recipe.name, "loss", step)
    torch.manual_seed(generator.initial_seed())  # for layers that draw, such as dropout
    loss = recipe.loss(network, course(step), generator)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item() if (step + 1) % 10 == 0 or step + 1 == plan.steps else None


def one_cycle(share: float) -> float:
    """The learning rate as a share of its peak, after a share of the steps."""
    if share < _WARM_UP:
        return _FIRST + (1 - _FIRST) * (1 - math.cos(math.pi * share / _WARM_UP)) / 2
    return (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP))) / 2


def _finite(loss: float, recipe: Recipe, step: int) -> float:
    if not math.isfinite(loss):
        raise ConfigError(
            f"training {recipe.name} failed: the loss was {loss} after {step + 1} steps; try "
            "another --seed"
        )
    return loss
