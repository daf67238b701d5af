"""Examples for the report: what was attacked, what was made of it, and what purifying leaves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from purifiers import Chain
from tuning.batches import seeded
from tuning.evaluate.recording import Recording
from tuning.evaluate.samples import ATTACK, OOD, UNSEEN
from tuning.evaluate.subject import Subject

Picture = npt.NDArray[np.uint8]
"""(C, H, W)."""
Pictures = dict[str, dict[str, Picture]]
"""Set of images -> captions and pictures, one example of each."""


def examples(subject: Subject, recording: Recording) -> Pictures:
    """One example of each attack that succeeds, of each unseen kind and of each of no class."""
    chain = Chain(subject.purifiers) if subject.purifiers else None
    found: Pictures = {}
    for name, each in recording.of(ATTACK).items():
        rows = each.kept.nonzero()[:1, 0]
        if not len(rows) or each.images.clean is None:
            continue
        x, clean = each.images.x[rows], each.images.clean[rows]
        row = {"original": clean, "attacked": x, "difference x10": 0.5 + 10 * (x - clean)}
        if chain is not None:
            row["purified"] = chain.purify(x, seeded(subject.seed, "picture"))
        found[name] = {caption: _levels(each) for caption, each in row.items()}
    for role in (UNSEEN, OOD):
        for name, each in recording.of(role).items():
            found[name] = {role: _levels(each.images.x[:1])}
    return found


def _levels(x: Tensor) -> Picture:
    levels: Picture = (x[0].clamp(0, 1) * 255).round().byte().numpy()
    return levels
