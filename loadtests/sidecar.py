"""Breakwater as the benchmarks run it: configurations, images to score, calibration, start."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from loadtests.harness import CHECKOUT, Child, free_port

BREAKWATER = str(Path(sys.executable).with_name("breakwater"))
MODELS = CHECKOUT / "loadtests" / "models"


@dataclass(frozen=True)
class Tensor:
    """A size of request: 3 x side x side FP32."""

    name: str
    side: int
    samples: int
    """Images to calibrate on: few, since only the cost of scoring matters here."""

    @property
    def model(self) -> str:
        """The model in loadtests/models that takes it."""
        return f"image_{self.name.replace(' ', '').lower()}"


TENSORS = (Tensor("12 KB", 32, 150), Tensor("600 KB", 224, 150))
FPR = 0.05
"""High enough for the few images calibrated on; a clean request costs the same at any rate."""


def images(side: int, count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random pictures with a little grain, (count, 3, side, side) uint8.

    White noise would be scored as an attack, and a constant would make every detector's work easy.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 3, 9, 9), dtype=np.float32)
    at = np.linspace(0, 8, side, endpoint=False)
    low, part = at.astype(int), (at % 1).astype(np.float32)
    rows = coarse[:, :, low] * (1 - part)[:, None] + coarse[:, :, low + 1] * part[:, None]
    smooth = rows[..., low] * (1 - part) + rows[..., low + 1] * part
    grain = rng.normal(0, 2, (count, 3, side, side)).astype(np.float32)
    pixels: NDArray[np.uint8] = np.clip(smooth * 255 + grain, 0, 255).astype(np.uint8)
    return pixels


def write_requests(path: Path, side: int, count: int) -> Path:
    """Write images as perf_analyzer's input file; it takes them in turn."""
    x = images(side, count, seed=1).astype(np.float32) / 255
    entries = [
        {"image": {"b64": base64.b64encode(one.tobytes()).decode(), "shape": list(one.shape)}}
        for one in x
    ]
    path.write_text(json.dumps({"data": entries}))
    return path


def write_config(path: Path, upstream: str, models: Mapping[str, Any], **settings: Any) -> Path:
    """Write a configuration with the RPC groups perf_analyzer needs; ports are free ones."""
    document = {
        "listen": f"127.0.0.1:{free_port()}",
        "upstream": upstream,
        "admin": f"127.0.0.1:{free_port()}",
        "rpc": {"allow": ["model-config", "statistics"]},
        "audit": {"path": f"{path.stem}-audit.jsonl"},
        "models": dict(models),
        **settings,
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def defended(calibration: Path, detectors: Sequence[str], **policy: Any) -> dict[str, Any]:
    """A model's entry with detectors and purification."""
    return {
        "inputs": [{"name": "image", "layout": "NCHW", "range": [0, 1]}],
        "output": {"name": "logits", "kind": "logits"},
        "calibration": str(calibration),
        "action": "purify",
        # Long enough that every request is scored: a busy machine must not make the defence cheap.
        "budget_ms": 1000,
        "fpr": FPR,
        "detectors": [{"name": name} for name in detectors],
        "purifiers": [{"name": "median"}],
        **policy,
    }


def calibrate(folder: Path, tensor: Tensor, upstream: str, detectors: Sequence[str]) -> Path:
    """Run `breakwater calibrate` for one model; return its calibration folder.

    Raises:
        RuntimeError: it failed; the text is its own.
    """
    out = folder / f"calibration-{tensor.model}"
    data = folder / f"{tensor.model}.npz"
    np.savez(data, x=images(tensor.side, tensor.samples))
    config = write_config(
        folder / f"calibrate-{tensor.model}.yaml",
        upstream,
        {tensor.model: defended(out, detectors)},
    )
    ran = subprocess.run(
        [
            *(BREAKWATER, "calibrate", "--config", str(config), "--model", tensor.model),
            *("--data", str(data), "--fpr", str(FPR), "--out", str(out)),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if ran.returncode != 0:
        raise RuntimeError(f"breakwater calibrate: {(ran.stdout + ran.stderr)[-2000:]}")
    return out


def start_breakwater(config: Path, workers: int = 1) -> tuple[Child, str]:
    """Start `breakwater serve`; return it and its address once it is ready.

    Raises:
        RuntimeError: it ended, or was not ready in time; the text is the tail of its log.
    """
    addresses = yaml.safe_load(config.read_text())
    child = Child(
        f"breakwater ({config.stem})",
        [BREAKWATER, "serve", "--config", str(config), "--workers", str(workers)],
        log=config.with_suffix(".log"),
        is_ready=lambda: _is_ready(addresses["admin"]),
        stop_by=signal.SIGINT,  # nobody is to be waited for
    )
    return child, addresses["listen"]


def _is_ready(admin: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{admin}/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
