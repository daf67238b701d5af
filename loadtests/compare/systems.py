"""The systems compared, each started as its user would run it before one Triton."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.compare.workload import FPR, Workload
from loadtests.harness import CHECKOUT, Child, accepts, free_port
from loadtests.peers import environment
from loadtests.sidecar import BREAKWATER, write_config

HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
MLSERVER = (
    "mlserver==1.7.1",
    "adversarial-robustness-toolbox==1.20.1",
    *("grpcio==1.85.1", "numpy==2.4.6", "pillow==13.0.0", "protobuf==6.33.6", "scipy==1.17.1"),
    # Its workers end at once under newer ones.
    "uvloop==0.21.0",
)
DETECTOR: Mapping[str, Any] = {
    "name": "feature_squeezing",
    "params": {
        "views": [
            {"name": "bit_depth", "params": {"bits": 5}},
            {"name": "median", "params": {"size": 3}},
        ],
        "measures": ["softmax"],
    },
}


def defended(calibration: Path) -> dict[str, Any]:
    """A model's entry in Breakwater's configuration."""
    return {
        "inputs": [{"name": "image", "layout": "NCHW", "range": [0, 1]}],
        "output": {"name": "logits", "kind": "logits"},
        "calibration": str(calibration),
        "mode": "enforce",
        "action": "purify",
        "dispatch": "speculative",
        # Every request is to be scored, however busy the machine: the peers have no budget either.
        "budget_ms": 5000,
        "fpr": FPR,
        "detectors": [DETECTOR],
        "purifiers": [{"name": "jpeg", "params": {"quality": 75}}],
    }


def calibrate(folder: Path, workload: Workload, upstream: str) -> Path:
    """Run `breakwater calibrate`; return the calibration's folder.

    Raises:
        RuntimeError: it failed; the text is its own.
    """
    name = workload.classifier
    out, data = folder / f"calibration-{name}", folder / f"{name}.npz"
    np.savez(data, x=workload.calibration.numpy())
    config = write_config(folder / f"calibrate-{name}.yaml", upstream, {name: defended(out)})
    ran = subprocess.run(
        [
            *(BREAKWATER, "calibrate", "--config", str(config), "--model", name),
            *("--data", str(data), "--fpr", str(FPR), "--out", str(out)),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if ran.returncode != 0:
        raise RuntimeError(f"breakwater calibrate: {(ran.stdout + ran.stderr)[-2000:]}")
    return out


def start_mlserver(
    folder: Path, workloads: tuple[Workload, ...], upstream: str, workers: int
) -> tuple[Child, str]:
    """Start peer (a); return it and its gRPC address once its models are ready."""
    python = environment("mlserver-1.7.1", MLSERVER)
    root = folder / f"mlserver-{workers}"
    ports = {key: free_port() for key in ("http_port", "grpc_port", "metrics_port")}
    for workload in workloads:
        model = root / workload.classifier
        model.mkdir(parents=True)
        settings = _model_settings(workload, upstream)
        (model / "model-settings.json").write_text(json.dumps(settings))
    server = {"host": "127.0.0.1", "parallel_workers": workers, "debug": False, **ports}
    server["metrics_dir"] = str(root)
    (root / "settings.json").write_text(json.dumps(server))
    child = Child(
        f"MLServer with {workers} workers",
        [str(python), str(HERE / "mlserver_start.py"), str(root), upstream],
        log=folder / f"mlserver-{workers}.log",
        is_ready=lambda: all(
            _answers(f"http://127.0.0.1:{ports['http_port']}/v2/models/{w.classifier}/ready")
            for w in workloads
        ),
        environment={**ONE_THREAD, "PYTHONPATH": str(HERE)},
    )
    return child, f"127.0.0.1:{ports['grpc_port']}"


def _model_settings(workload: Workload, upstream: str) -> dict[str, Any]:
    shape = [-1, 3, workload.side, workload.side]
    return {
        "name": workload.classifier,
        "implementation": "mlserver_runtime.Transformer",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": shape}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
        "parameters": {"extra": {"upstream": upstream, "threshold": workload.threshold}},
    }


def start_art_proxy(folder: Path, workload: Workload, upstream: str) -> tuple[Child, str]:
    """Start peer (c); return it and its address."""
    port = free_port()
    child = Child(
        "ART proxy",
        [
            *(sys.executable, "-m", "loadtests.compare.art_proxy", "--upstream", upstream),
            *("--listen", f"127.0.0.1:{port}", "--threshold", str(workload.threshold)),
        ],
        log=folder / f"art-proxy-{workload.classifier}.log",
        is_ready=lambda: accepts(port),
        environment=ONE_THREAD,
    )
    return child, f"127.0.0.1:{port}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
