"""The attacks the quality figures are measured with; none of them knows any detector.

Standard attacks come from the Adversarial Robustness Toolbox. `smooth_pgd` is our own loop: no
library has a low-frequency PGD, and a suite without one flatters every input-only detector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loadtests.cifar import quantise

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Model, images (N, C, H, W), labels (N,) -> attacked images, before rounding to 8 bits."""

SMOOTH_GRID = 12
"""Side of the coarse grid of `smooth_pgd`: 12 of 32 keeps the lower third of frequencies."""


def _classifier(model: nn.Module, x: Tensor) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
    )


def _evasion(name: str, **params: Any) -> Attack:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks import evasion

        np.random.seed(7)  # noqa: NPY002 (the toolbox draws from the global generator)
        torch.manual_seed(7)
        attack = getattr(evasion, name)(_classifier(model, x), verbose=False, **params)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return run


def _fgsm(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    from art.attacks.evasion import FastGradientMethod

    attack = FastGradientMethod(_classifier(model, x), eps=8 / 255, batch_size=100)
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def _pgd(eps: float) -> Attack:
    return _evasion(
        "ProjectedGradientDescentPyTorch",
        eps=eps / 255,
        eps_step=2.5 * eps / 255 / 20,
        max_iter=20,
        num_random_init=1,
        batch_size=100,
    )


def smooth_pgd(eps: float, steps: int = 30) -> Attack:
    """PGD whose perturbation is a bilinearly enlarged coarse grid, so it has no fine texture.

    Args:
        eps: L-infinity bound in 1/255.
        steps: sign steps of 2.5 eps / steps.
    """
    bound = eps / 255

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        grid = torch.zeros(x.shape[0], x.shape[1], SMOOTH_GRID, SMOOTH_GRID, requires_grad=True)
        for _ in range(steps):
            loss = F.cross_entropy(model(_enlarged(x, grid)), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, grid)
            with torch.no_grad():
                grid += 2.5 * bound / steps * gradient.sign()
                grid.clamp_(-bound, bound)
        return _enlarged(x, grid).detach()

    return run


def _enlarged(x: Tensor, grid: Tensor) -> Tensor:
    delta = F.interpolate(grid, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return (x + delta).clamp(0, 1)


def survive_rounding(model: nn.Module, x: Tensor, attacked: Tensor) -> Tensor:
    """Round to 8 bits, scaling each perturbation up (at most 3x) until the class still differs.

    Minimal attacks such as DeepFool stop on the boundary; rounding alone would undo most of them.
    """
    with torch.no_grad():
        before = model(x).argmax(1)
        result = quantise(attacked)
        for scale in (1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0):
            missed = model(result).argmax(1) == before
            if not missed.any():
                break
            result[missed] = quantise(x + scale * (attacked - x))[missed]
    return result


ATTACKS: dict[str, Attack] = {
    "fgsm 8/255": _fgsm,
    "pgd 2/255": _pgd(2),
    "pgd 4/255": _pgd(4),
    "pgd 8/255": _pgd(8),
    "smooth pgd 4/255": smooth_pgd(4),
    "smooth pgd 8/255": smooth_pgd(8),
    "deepfool": _evasion("DeepFool", max_iter=20, epsilon=0.02, nb_grads=3, batch_size=1),
    "square 8/255": _evasion("SquareAttack", eps=8 / 255, max_iter=150, batch_size=100),
}

MINIMAL = frozenset({"deepfool"})
"""Attacks that stop on the boundary and need `survive_rounding`."""


def successful(name: str, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Attack correctly classified images; return those the model now gets wrong, and their labels.

    Returns:
        Attacked images rounded to 8 bits, (M, C, H, W), and true labels (M,).
    """
    attacked = ATTACKS[name](model, x, y).float()
    rounded = survive_rounding(model, x, attacked) if name in MINIMAL else quantise(attacked)
    with torch.no_grad():
        wrong = model(rounded).argmax(1) != y
    return rounded[wrong], y[wrong]
