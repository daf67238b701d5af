"""The attacks a defence is measured with; none of them knows any detector."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn

from detectors.benign import rounded
from tuning.evaluate.adversaries import (
    BATCH,
    Foolbox,
    HopSkipJump,
    Patch,
    Run,
    Smooth,
    Toolbox,
    pgd,
)
from tuning.evaluate.store import Store, code, digest


@dataclass(frozen=True)
class Attack:
    """One attack of the suite."""

    family: str
    """Attacks of one family leave like traces: none is scored by a fusion trained on another."""
    run: Run
    minimal: bool = False
    """Whether it stops on the boundary and needs `survive_rounding`."""
    most: int | None = None
    """The most images it is run on; the dearest has a limit."""


@dataclass(frozen=True)
class Attacked:
    """What one attack made of all images it was given, in their order."""

    x: Tensor
    """(N, C, H, W) in [0, 1], rounded to 8 bits; those that fool nobody included."""
    y: Tensor
    """True labels, (N,)."""
    clean: Tensor
    """What was attacked, (N, C, H, W)."""
    fooled: Tensor
    """Whether the attacked model gets it wrong, (N,) bool."""
    seconds: float
    """CPU time of the attack, seconds of all cores together."""

    @property
    def distances(self) -> Tensor:
        """L2 norm of each perturbation, (N,), pixels in [0, 1]."""
        norms: Tensor = (self.x - self.clean).flatten(1).norm(dim=1)
        return norms


_CW = {"binary_search_steps": 3, "steps": 60, "stepsize": 0.01, "initial_const": 1.0}
_SQUARE = {"eps": 8 / 255, "max_iter": 300, "batch_size": BATCH, "verbose": False}
_HSJ = {"max_iter": 14, "max_eval": 250, "init_eval": 30}
_APGD = {
    "eps": 8 / 255,
    "eps_step": 16 / 255,
    "max_iter": 30,
    "nb_random_init": 1,
    "batch_size": BATCH,
    "verbose": False,
}

ATTACKS: dict[str, Attack] = {
    "fgsm8": Attack(
        "gradient_linf", Toolbox("FastGradientMethod", {"eps": 8 / 255, "batch_size": BATCH})
    ),
    "pgd2": Attack("gradient_linf", pgd(2 / 255, 20)),
    "pgd4": Attack("gradient_linf", pgd(4 / 255, 20)),
    "pgd8": Attack("gradient_linf", pgd(8 / 255, 20)),
    "smooth4": Attack("smooth", Smooth(4 / 255)),
    "smooth8": Attack("smooth", Smooth(8 / 255)),
    "patch8": Attack("patch", Patch(8)),
    "deepfool": Attack(
        "minimal_l2", Foolbox("L2DeepFoolAttack", {"steps": 20, "candidates": 5}), minimal=True
    ),
    "square8": Attack("block", Toolbox("SquareAttack", _SQUARE)),
    "cw": Attack("minimal_l2", Foolbox("L2CarliniWagnerAttack", _CW), minimal=True),
    "cw_k20": Attack(
        "minimal_l2", Foolbox("L2CarliniWagnerAttack", {**_CW, "confidence": 20}), minimal=True
    ),
    "pgd100_8": Attack("gradient_linf", pgd(8 / 255, 100)),
    "apgd8": Attack("gradient_linf", Toolbox("AutoProjectedGradientDescent", _APGD)),
    "hsj": Attack("query", HopSkipJump(_HSJ), minimal=True, most=50),
}
"""Name -> attack, roughly the quick ones first. Numbers: bounds in 1/255, of the patch pixels."""


def survive_rounding(model: nn.Module, x: Tensor, attacked: Tensor) -> Tensor:
    """Round to 8 bits, scaling each perturbation up (at most 3x) until the class still differs.

    Minimal attacks such as DeepFool stop on the boundary; rounding alone would undo most of them.
    """
    with torch.no_grad():
        before = model(x).argmax(1)
        result = rounded(attacked)
        for scale in (1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0):
            missed = model(result).argmax(1) == before
            if not missed.any():
                break
            result[missed] = rounded(x + scale * (attacked - x))[missed]
    return result


def attacked(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 7) -> Attacked:
    """Attack every image (at most `attack.most`), and round to 8 bits."""
    x, y = x[: attack.most], y[: attack.most]
    started = time.process_time()
    made = attack.run(model, x, y, seed).float()
    made = survive_rounding(model, x, made) if attack.minimal else rounded(made)
    seconds = time.process_time() - started
    with torch.no_grad():
        fooled = model(made).argmax(1) != y
    return Attacked(made, y, x, fooled, seconds)


def cached(
    store: Store,
    name: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    seed: int = 7,
    identity: str = "",
) -> Attacked:
    """What `attacked` returns for `ATTACKS[name]`, from the store where it was made before.

    Whatever the result depends on, if changed, makes it anew: the attack with all its parameters
    and its code, the libraries, the model's weights, the images, the labels and the seed.

    Args:
        identity: tells models apart whose weights are not to be seen.
    """
    attack = ATTACKS[name]
    x, y = x[: attack.most], y[: attack.most]
    weights = digest(*model.state_dict().values())
    key = f"{attack!r} {code(attack.run)} {_libraries()} {identity} {weights} {digest(x, y)} {seed}"

    def make() -> dict[str, Tensor]:
        result = attacked(attack, model, x, y, seed=seed)
        seconds = torch.tensor(result.seconds)
        pixels = (result.x * 255).round().to(torch.uint8)
        return {"x": pixels, "fooled": result.fooled, "seconds": seconds}

    held = store.tensors(name, key, make)
    return Attacked(held["x"].float() / 255, y, x, held["fooled"], float(held["seconds"]))


def _libraries() -> str:
    names = ("adversarial-robustness-toolbox", "foolbox", "torch")
    return " ".join(version(name) for name in names)
