"""A defence and the bare model under one adaptive attacker: does the defence ever do harm?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from detectors.binomial import lower_bound, upper_bound
from tuning.evaluate.adaptive import Outcome, Target, attack, judge


@dataclass(frozen=True)
class Confrontation:
    """One defence and the bare model under one attacker, as shares of each image, (B,).

    Shares are 0 or 1 unless a target is random. `strongest` counts the best of all images that
    were tried on either: a defence is weaker than none only if it loses more of those.
    """

    eps: float
    steps: int
    aimed: Outcome
    """The images aimed at the defence."""
    strongest: Tensor
    """Wrong and not flagged, under the best of all images."""
    bare: Tensor
    """The bare model is wrong under plain PGD with as many steps."""
    bare_strongest: Tensor
    """The bare model is wrong under the best of all images."""
    images: tuple[Tensor, ...]
    """All that were tried."""

    def row(self) -> dict[str, float | int]:
        """Shares over the images, with 95 % Clopper-Pearson intervals where they compare."""
        shares = {
            "misclassified": self.aimed.wrong,
            "evading": self.aimed.quiet,
            "wrong_and_not_flagged": self.aimed.won,
            "strongest": self.strongest,
            "undefended": self.bare,
            "undefended_strongest": self.bare_strongest,
        }
        row: dict[str, float | int] = {
            "eps_255": round(self.eps * 255),
            "steps": self.steps,
            "samples": len(self.bare),
        }
        row |= {name: round(float(share.mean()), 4) for name, share in shares.items()}
        for name in ("strongest", "undefended_strongest"):
            count, total = round(float(shares[name].sum())), len(self.bare)
            row[f"{name}_low"] = round(lower_bound(count, total, 0.975), 4)
            row[f"{name}_high"] = round(upper_bound(count, total, 0.975), 4)
        return row


def confront(
    branches: Sequence[Target],
    bare: Target,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int,
    seed: int = 7,
    known: Sequence[Tensor] = (),
) -> Confrontation:
    """Attack a defence and the bare model with one bound and one budget.

    Args:
        branches: the ways through the defence; whoever gets through one of them has won.
        bare: the model without it.
        x: correctly answered images, (B, C, H, W), multiples of 1/255.
        y: true labels, (B,).
        eps: L-infinity bound, a multiple of 1/255.
        steps: gradient steps of each attack.
        seed: of the starting points.
        known: images found before under this bound or a smaller one, from the same `x`; what wins
            with few steps wins with many, too.
    """
    aimed = [attack(branch, x, y, eps=eps, steps=steps, seed=seed) for branch in branches]
    plain = attack(bare, x, y, eps=eps, steps=steps, seed=seed)
    images = (*aimed, plain, *known)
    own = [judge(branch, each, y) for branch, each in zip(branches, aimed, strict=True)]
    best = [judge(branch, each, y).won for branch in branches for each in images]
    return Confrontation(
        eps,
        steps,
        Outcome(*(torch.stack([getattr(o, n.name) for o in own]).amax(0) for n in fields(Outcome))),
        torch.stack(best).amax(0),
        judge(bare, plain, y).won,
        torch.stack([judge(bare, each, y).won for each in images]).amax(0),
        images,
    )
