"""Adversarial images to train guided parts on: many kinds, few steps, all in one batch.

For training only. What a part is measured with comes from a library and knows nothing of this
(`tuning.evaluate.attacks`); the kinds here are made to differ, not to be strong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tuning.local_model import LogitModel

FAMILIES = ("linf", "l2", "smooth", "blocks", "patch")
"""linf: sign steps within 1 to 8/255. l2: gradient steps that stop soon after the answer has
changed, like the minimal attacks. smooth and blocks: linf on a coarse grid, enlarged with and
without interpolation. patch: anything, within a square of a quarter of the side."""

_EPS = (1 / 255, 8 / 255)
_RMS = (0.3 / 255, 3 / 255)
"""Largest root-mean-square change of the L2 kind: 0.07 to 0.65 in L2 norm at 3x32x32, from DeepFool
to Carlini-Wagner with a margin."""
_MARGIN = 3.0
"""The L2 kind stops where the wrong class leads by 0 to this, in logits."""
_STEPS = (3, 7)
_SMOOTH_GRID = (8, 14)
_BLOCK_GRID = (4, 12)
"""Cells along each side: as coarse as the smooth attacks that input-only detectors miss."""


def attack(
    model: LogitModel,
    x: Tensor,
    generator: torch.Generator,
    families: Sequence[str] = FAMILIES,
) -> Tensor:
    """Copies of `x` that push the model away from its own answers, rounded to 8 bits.

    Each sample is attacked in one way chosen at random, at a strength of its own.

    Args:
        model: (B, C, H, W) -> (B, K) logits or log-probabilities, differentiable.
        x: (B, C, H, W) float32 in [0, 1], H and W at least 4.
        generator: source of all choices, on the CPU.
        families: the ways, of `FAMILIES`.

    Source: PGD, Madry et al., ICLR 2018 (arXiv 1706.06083); coarse grids after Guo et al., UAI
    2019 (arXiv 1809.08758), 3.2; patches, Brown et al. 2017 (arXiv 1712.09665).
    """
    change = _Change(x, generator, families)
    with torch.no_grad():
        answer = model(x).argmax(1)
    steps = int(torch.randint(_STEPS[0], _STEPS[1] + 1, (1,), generator=generator))
    for _ in range(steps):
        with torch.enable_grad():
            delta = change.delta.clone().requires_grad_()
            logits = model((x + delta).clamp(0, 1))
            loss = F.cross_entropy(logits, answer, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, delta)
        change.step(gradient, _lead(logits.detach(), answer), 2.5 / steps)
    return torch.round((x + change.delta).clamp(0, 1) * 255) / 255


def _lead(logits: Tensor, answer: Tensor) -> Tensor:
    """By how much the best other class beats the original answer, (B,)."""
    own = logits.gather(1, answer[:, None])[:, 0]
    return logits.scatter(1, answer[:, None], -torch.inf).amax(1) - own


class _Change:
    """The perturbations of a batch, and how each family moves along the gradient.

    `step` sizes are shares of the largest change allowed.
    """

    def __init__(self, x: Tensor, generator: torch.Generator, families: Sequence[str]) -> None:
        count, _, height, width = x.shape
        self._x = x

        def drawn(low: float, high: float) -> Tensor:
            share = torch.rand(count, generator=generator)
            return (low + (high - low) * share).view(-1, 1, 1, 1).to(x.device)

        drawn_from = torch.tensor([FAMILIES.index(name) for name in families])
        chosen = torch.randint(len(families), (count,), generator=generator)
        kind = drawn_from[chosen].to(x.device)
        self._is = {name: (kind == i).view(-1, 1, 1, 1) for i, name in enumerate(FAMILIES)}
        self._eps = drawn(*_EPS)
        self._radius = drawn(*_RMS) * x[0].numel() ** 0.5
        self._margin = drawn(0, _MARGIN).flatten()
        self._grids = tuple(
            int(torch.randint(low, high + 1, (1,), generator=generator))
            for low, high in (_SMOOTH_GRID, _BLOCK_GRID)
        )
        self._patch = _squares(count, (height, width), generator).to(x.device)
        start = torch.rand(x.shape, generator=generator).to(x.device)
        self.delta = torch.where(
            self._is["patch"],
            (start - x) * self._patch,
            self._is["linf"] * self._eps * (2 * start - 1),
        )
        """(B, C, H, W)."""

    def step(self, gradient: Tensor, lead: Tensor, size: float) -> None:
        """Move uphill.

        Args:
            gradient: of the loss, (B, C, H, W).
            lead: of the wrong class, in logits, (B,).
            size: share of the largest change.
        """
        bound, sign = self._eps, gradient.sign()
        linf = (self.delta + size * bound * sign).clamp(-bound, bound)
        smooth, blocks = (
            self._coarse(gradient, grid, mode)
            for grid, mode in zip(self._grids, ("bilinear", "nearest"), strict=True)
        )
        going = (lead < self._margin).view(-1, 1, 1, 1)
        moves = {
            "linf": linf,
            "l2": torch.where(going, self._ball(gradient, size), self.delta),
            "smooth": (self.delta + size * bound * smooth).clamp(-bound, bound),
            "blocks": (self.delta + size * bound * blocks).clamp(-bound, bound),
            "patch": (self.delta + size * sign * self._patch).clamp(-self._x, 1 - self._x),
        }
        for name, moved in moves.items():
            self.delta = torch.where(self._is[name], moved, self.delta)

    def _ball(self, gradient: Tensor, size: float) -> Tensor:
        unit = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        # Half steps: it is to stop close behind the boundary.
        moved = self.delta + 0.5 * size * self._radius * unit
        norm = moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        inside: Tensor = moved * (self._radius / norm.clamp(min=1e-12)).clamp(max=1)
        return inside

    def _coarse(self, gradient: Tensor, grid: int, mode: str) -> Tensor:
        """Sign of the gradient with respect to the values of a coarse grid, enlarged."""
        height, width = gradient.shape[-2:]
        cells = F.adaptive_avg_pool2d(gradient, (min(grid, height), min(grid, width)))
        return F.interpolate(cells.sign(), size=(height, width), mode=mode)


def _squares(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A square of a quarter of the shorter side at a random place in each image, (N, 1, H, W)."""
    side = max(1, min(size) // 4)
    masks = torch.ones(count, 1, 1, 1)
    for axis, length in ((2, size[0]), (3, size[1])):
        start = torch.randint(0, length - side + 1, (count, 1), generator=generator)
        at = torch.arange(length)
        inside = ((at >= start) & (at < start + side)).float()  # (N, length)
        masks = masks * inside.view(count, 1, *((-1, 1) if axis == 2 else (1, -1)))
    return masks
