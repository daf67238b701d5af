"""The demo's configuration; a user's would look the same."""

from __future__ import annotations

from typing import Any

from tuning.demo.digits import MODEL

FPR = 0.02
"""Wanted false-positive rate."""

DETECTORS: list[dict[str, Any]] = [
    {"name": "residual"},
    {"name": "margin"},
    {
        "name": "feature_squeezing",
        "params": {
            "views": [
                {"name": "jpeg", "params": {"quality": 50}},
                {"name": "median", "params": {"size": 3}},
            ]
        },
    },
]
PURIFIERS: list[dict[str, Any]] = [
    {"name": "jpeg", "params": {"quality": 10}},
    {"name": "median", "params": {"size": 3}},
    {"name": "bit_depth", "params": {"bits": 1}},
]
"""Severe, and right for digits: they stay legible at two grey levels. Photographs do not."""


def document(upstream: str) -> dict[str, Any]:
    """The configuration file's content, for a Triton at this address.

    Paths are relative to the file; ports are any that are free.
    """
    model = {
        "inputs": [{"name": "image", "layout": "NCHW", "range": [0, 1]}],
        "output": {"name": "logits", "kind": "logits"},
        "calibration": "calibration",
        "mode": "enforce",
        "action": "purify",
        "dispatch": "speculative",
        "fpr": FPR,
        "budget_ms": 200,
        "annotate": True,
        "detectors": DETECTORS,
        "purifiers": PURIFIERS,
    }
    return {
        "listen": "127.0.0.1:0",
        "upstream": upstream,
        "admin": "127.0.0.1:0",
        "audit": {"path": "audit.jsonl"},
        "models": {MODEL: model},
    }
