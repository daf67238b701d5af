"""Recorded scores for tests: traffic of two detectors or more, as snapshots have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from detectors.calibration import Calibration
from tuning.live_scores import Scores, Traffic

NAMES = ("energy", "margin", "residual")
"""Detectors."""


def draw(count: int, seed: int, scale: float = 1.0) -> Scores:
    """Benign scores, (count, D): skewed, and correlated as scores of one image are."""
    generator = np.random.default_rng(seed)
    shared = generator.gamma(2, 1, (count, 1))
    return (generator.gamma(2, 1, (count, len(NAMES))) + shared) * scale


def attacked(count: int, seed: int) -> Scores:
    """Scores far in the tail of one detector, (count, D)."""
    scores = draw(count, seed)
    scores[:, 2] += 15
    return scores


def calibration(count: int = 900) -> Calibration:
    """Of two benign groups; the second is spread wider."""
    groups = {"clean": draw(count, 1), "noise": draw(count, 2, 1.3)}
    return Calibration.fit(
        {
            group: dict(zip(NAMES, torch.from_numpy(scores.T.astype(np.float32)), strict=True))
            for group, scores in groups.items()
        }
    )


def traffic(
    scores: Scores,
    *,
    principals: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    failed: Sequence[bool] | None = None,
    chained: Sequence[bool] | None = None,
) -> Traffic:
    """Samples with ids in their order, each of a principal of its own unless it is said whose."""
    count = len(scores)
    return Traffic(
        NAMES,
        np.array([f"{i:06d}:0" for i in range(count)], dtype=np.str_),
        np.array(principals or [f"p{i}" for i in range(count)], dtype=np.str_),
        np.array(labels or [""] * count, dtype=np.str_),
        np.array(failed or [False] * count, dtype=bool),
        np.array(chained or [False] * count, dtype=bool),
        scores,
    )


def snapshot(scores: Scores, *, prefix: str = "", **columns: Sequence[Any]) -> dict[str, Any]:
    """What a reservoir with these samples would tell."""
    count = len(scores)
    told: dict[str, Any] = {
        "id": [f"{prefix}{i:06d}:0" for i in range(count)],
        "time_s": [1.7e9 + i for i in range(count)],
        "principal": [f"{i % 97:08x}" for i in range(count)],
        "fused": [1.0] * count,
        "verdict": ["pass"] * count,
        "action": ["none"] * count,
        "chain": [False] * count,
        "label": [""] * count,
        "total_ms": [2.0] * count,
        "scores": {
            name: [None if value != value else float(value) for value in column]
            for name, column in zip(NAMES, scores.T, strict=True)
        },
    }
    return {"model": "m", "version": "1", "detectors": list(NAMES), "columns": told | columns}
