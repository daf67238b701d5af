"""Made-up scores of real detectors: a calibration, recorded samples, an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detectors.calibration import Calibration
from proxy import evaluation
from proxy.config import Model
from proxy.evaluation import Evaluation, Kind

NAMES = ("residual", "margin", "feature_squeezing")
"""Of three levels: on the input, on the model's answer, on its answers to copies."""
DIGEST = "d" * 64
"""Of the defence that the evaluation is of."""


def drawn(count: int, seed: int, shift: float = 0.0, width: int = len(NAMES)) -> np.ndarray:
    """(count, width) scores that depend on each other, as benign images give."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((count, 1))
    return (shared + generator.standard_normal((count, width)) + shift).astype(np.float32)


def a_calibration(count: int = 300, names: Sequence[str] = NAMES) -> Calibration:
    return Calibration.fit(
        {
            group: dict(
                zip(names, torch.from_numpy(drawn(count, seed, width=len(names))).T, strict=True)
            )
            for seed, group in enumerate(("clean", "noise"))
        }
    )


def a_model(names: Sequence[str] = NAMES, **fields: Any) -> Model:
    parts = [{"name": name} for name in names]
    settings = {"calibration": "calibration", "fpr": 0.05, "detectors": parts, **fields}
    return Model.model_validate(settings)


def a_snapshot(scores: np.ndarray, names: Sequence[str] = NAMES, **columns: Any) -> dict[str, Any]:
    """What the records give, of these samples; NaN where a detector did not look."""
    count = len(scores)
    return {
        "model": "m",
        "detectors": list(names),
        "seen": 10 * count,
        "kept": count,
        "columns": {
            "id": [f"r{row}:0" for row in range(count)],
            "time_s": [float(row) for row in range(count)],
            "fused": [0.0] * count,
            "verdict": ["pass"] * count,
            "action": ["none"] * count,
            "chain": [False] * count,
            "label": [""] * count,
            "total_ms": [2.0] * count,
            "scores": {
                name: [None if np.isnan(each) else float(each) for each in column]
                for name, column in zip(names, scores.T, strict=True)
            },
            **columns,
        },
    }


def an_evaluation(folder: Path, about: Mapping[str, Any] | None = None, model: str = "m") -> Path:
    """Write an evaluation of model m with these detectors."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "model": model,
        "defence": DIGEST,
        "threats": {"pgd": "oblivious"},
        "trained_on": {"pgd": True},
    }
    right = np.zeros((40, 1), np.uint8)
    found = Evaluation(
        NAMES,
        (
            Kind(evaluation.ATTACK, "pgd", drawn(40, 8, 2.0), right=right),
            Kind(evaluation.BENIGN, "clean", drawn(30, 9)),
            Kind(evaluation.OOD, "noise", drawn(20, 10, 1.0)),
        ),
        about={**known, **(about or {})},
    )
    (folder / evaluation.SCORES_FILE).write_bytes(evaluation.dump(found))
    report = {"model": model, "date": "2026-11-23", "seed": 0, "rows": []}
    (folder / evaluation.REPORT_FILE).write_text(json.dumps(report))
    return folder
