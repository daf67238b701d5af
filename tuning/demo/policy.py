"""The demo's configuration; a user's would look the same."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import yaml

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


TOKEN_FILE = "control.token"  # noqa: S105 (where it is, not what it is)


def write(folder: Path, upstream: str) -> Path:
    """Write the configuration, for a Triton at this address, and a new token beside it.

    Returns:
        The configuration file.
    """
    token = folder / TOKEN_FILE
    token.unlink(missing_ok=True)  # that of an earlier run, whoever may read it
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(24) + "\n")
    config = folder / "breakwater.yaml"
    config.write_text(yaml.safe_dump(document(upstream), sort_keys=False))
    return config


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
        "control": {"listen": "127.0.0.1:0", "token_file": TOKEN_FILE},
        "audit": {"path": "audit.jsonl"},
        "records": {"thumbnails": True},
        "models": {MODEL: model},
    }
