"""How a reader knows an attack or a set of images."""

from __future__ import annotations

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
}
"""Attack -> the name people know it by; numbers are bounds of 255."""

TUNED = "(tuned on)"
"""What marks an attack that some part of the defence learned from."""


def titled(name: str) -> str:
    """A name as a reader knows it, e.g. `transfer_pgd8` -> PGD 8."""
    bare = name.removeprefix("transfer_")
    bound = bare.removeprefix("grey")
    if bare.startswith("grey") and bound.isdecimal():
        return f"EOT PGD {bound}"
    return NAMES.get(bare, bare.replace("_", " "))
