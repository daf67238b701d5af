"""How a reader knows an attack or a set of images."""

from __future__ import annotations

import re

NAMES = {
    "fgsm8": "FGSM 8",
    "pgd2": "PGD 2",
    "pgd4": "PGD 4",
    "pgd8": "PGD 8",
    "pgd100_8": "PGD-100 8",
    "apgd8": "APGD 8",
    "smooth4": "smooth PGD 4",
    "smooth8": "smooth PGD 8",
    "patch8": "patch 8x8",
    "deepfool": "DeepFool",
    "square8": "Square 8",
    "cw": "CW",
    "cw_k20": "CW kappa 20",
    "hsj": "HopSkipJump",
    "square_queries": "Square",
    "hop_skip_jump_queries": "HopSkipJump",
}
"""Attack -> the name people know it by; numbers are bounds of 255."""

_BOUNDED = re.compile(r"(grey|adaptive)(\d+)(\w*)", re.ASCII)
"""Attacks that are named by their bound, and the way they take through the defence."""

TUNED = "(tuned on)"
"""What marks an attack that some part of the defence learned from."""


def titled(name: str) -> str:
    """A name as a reader knows it, e.g. `transfer_pgd8` -> PGD 8."""
    bare = name.removeprefix("transfer_")
    bounded = _BOUNDED.fullmatch(bare)
    if bounded:
        kind, bound, way = bounded.groups()
        return (
            f"EOT PGD {bound}" if kind == "grey" else f"{way.strip('_').replace('_', ' ')} {bound}"
        )
    return NAMES.get(bare, bare.replace("_", " "))
