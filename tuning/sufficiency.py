"""How much live evidence a threshold takes, and what is said where there is less."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detectors.rule import FIT_SHARE
from proxy.errors import ConfigError
from tuning.screening import BEYOND, Step

EVIDENCE = 10
"""Samples above the threshold that it rests on, at least: with 10, a threshold's true rate is
within 1.7 times the wanted one in 95 % of draws (Clopper-Pearson); with 1, within 4.7 times."""


class TooFew(ConfigError):
    """The evidence is too thin for the wanted rate.

    Args:
        left: samples left after screening.
        needed: samples needed after screening.
        why: more to say.
    """

    def __init__(self, left: int, needed: int, why: str) -> None:
        super().__init__(why)
        self.left, self.needed = left, needed


def samples_needed(fpr: float) -> int:
    """Fewest samples after screening: `EVIDENCE` / fpr for the threshold, beside the fusion's part.

    Raises:
        ConfigError: it is not a rate.
    """
    if not 0 < fpr < 1:
        raise ConfigError(f"the false-positive rate must be between 0 and 1, not {fpr:g}")
    held = math.ceil(EVIDENCE / fpr - 1e-9)
    needed = math.ceil(held / (1 - FIT_SHARE)) - 2
    while needed - round(needed * FIT_SHARE) < held:
        needed += 1
    return needed


def check_enough(left: int, steps: Sequence[Step], *, fpr: float, share: float) -> None:
    """Refuse evidence that is too thin.

    Args:
        left: samples left after screening.
        steps: of the screening.
        fpr: the wanted false-positive rate.
        share: of the samples left, the most that one principal may give.

    Raises:
        TooFew: more samples are needed.
        ConfigError: `fpr` is no rate.
    """
    needed = samples_needed(fpr)
    if left >= needed:
        return
    beyond = next((step for step in steps if step.what.startswith(BEYOND)), None)
    few = ""
    if beyond is not None and left < needed <= left + beyond.dropped:
        few = (
            f"; {beyond.dropped} are left out since their principals give more than "
            f"{share:.0%} of all: where a few services, or one gateway, send everything, "
            "allow more with --principal-share"
        )
    raise TooFew(
        left,
        needed,
        f"too little evidence: {left} samples are left after screening, and a false-positive rate "
        f"of {fpr:g} needs {needed}, {needed - left} more{few}",
    )
