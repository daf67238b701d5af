"""How much an evaluation measures, and what may be chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

OBLIVIOUS = "oblivious"
"""Knows the model and no defence."""
TRANSFER = "transfer"
"""Has a model of its own that answers like the served one."""
QUERY = "black-box query"
"""Asks the endpoint and sees its answers."""
GREY_BOX = "grey-box"
"""Knows the model and the purifiers, not the detectors nor the calibration."""
ADAPTIVE = "adaptive"
"""Knows everything: model, purifiers, detectors, fusion and threshold."""
THREATS = (OBLIVIOUS, TRANSFER, QUERY, GREY_BOX, ADAPTIVE)
WHITE_BOX = (OBLIVIOUS, GREY_BOX, ADAPTIVE)
"""What takes a copy of the model."""

TRANSFERRED = ("pgd8", "smooth8")
"""Attacks that are made on the surrogate."""
QUICK_ATTACKS = ("fgsm8", "pgd4", "pgd8", "smooth8", "patch8", "deepfool", "square8")


@dataclass(frozen=True)
class Sizes:
    """How many images each part uses."""

    benign: int = 300
    """Fresh benign images; each comes in every variation."""
    ood: int = 200
    """Of each kind of no class."""
    attacked: int = 200
    grey: int = 100
    """Of the attacked ones, by who knows the purifiers."""
    grey_steps: int = 30
    adaptive: int = 32
    """Of the attacked ones, by who knows everything."""
    adaptive_steps: int = 50
    bounds: tuple[int, ...] = (2, 8)
    """Of grey-box and adaptive attacks, in 1/255."""
    surrogate: int = 3000
    """Images a surrogate is trained on, at most."""
    surrogate_steps: int = 300
    queried: int = 10
    """Images attacked through the endpoint, with each attack."""
    scored_budget: int = 300
    """Queries of an attacker who reads scores."""
    decided_budget: int = 600
    """Queries of an attacker who reads the class only."""
    served: int = 20
    """Of each set, sent through the running sidecar."""
    timed: int = 300
    """Requests timed with each action."""
    attacks: tuple[str, ...] | None = None
    """Names of `attacks.ATTACKS`; None for all."""


FULL = Sizes()
QUICK = Sizes(
    benign=80,
    ood=40,
    attacked=40,
    grey=16,
    grey_steps=15,
    adaptive=8,
    adaptive_steps=15,
    bounds=(8,),
    surrogate=800,
    surrogate_steps=60,
    queried=3,
    scored_budget=100,
    decided_budget=200,
    served=4,
    timed=80,
    attacks=QUICK_ATTACKS,
)


def sized(*, quick: bool, samples: int | None = None) -> Sizes:
    """The sizes of a run.

    Args:
        samples: images attacked, in place of the default; the dearer attacks have no more.
    """
    sizes = QUICK if quick else FULL
    if samples is None:
        return sizes
    return replace(
        sizes,
        attacked=samples,
        grey=min(samples, sizes.grey),
        adaptive=min(samples, sizes.adaptive),
        queried=min(samples, sizes.queried),
    )
