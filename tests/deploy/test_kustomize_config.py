"""The configuration in every rendered ConfigMap is taken by `breakwater check`, as in the pod."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from proxy import configfile
from tests.deploy.rendered import TARGETS, config_of, target
from tests.images import benign
from tuning.calibrate import run
from tuning.triton import EmbeddedTriton

ROOTS = ("/etc/breakwater", "/var/lib/breakwater")
"""Where the pod's files are."""
NOWHERE = "127.0.0.1:1"
MODEL = "resnet50"
DEFENDING = ("observe-first", "redis")
"""Those whose configuration names detectors, so that it needs a calibration."""
SECRET_FILES = ("secrets/control.token", "secrets/breakwater.key", "history/redis.password")


def placed(text: str, root: Path, upstream: str = NOWHERE) -> Path:
    """Write a configuration and its secrets as the pod has them, below another root."""
    for where in ROOTS:
        text = text.replace(where, f"{root}{where}")
    assert "127.0.0.1:8001" in text
    folder = root / "etc" / "breakwater"
    for name in SECRET_FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a secret of the test, long enough".replace(" ", "-"))
    path = folder / "breakwater.yaml"
    path.write_text(text.replace("127.0.0.1:8001", upstream))
    return path


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line that users run."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", "check", "--config", path],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def test_which_have_models_to_calibrate() -> None:
    for name in TARGETS:
        models = yaml.safe_load(config_of(target(name))).get("models", {})
        assert any(model.get("detectors") for model in models.values()) == (name in DEFENDING)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in DEFENDING])
def test_it_is_accepted(name: str, tmp_path: Path) -> None:
    done = check(placed(config_of(target(name)), tmp_path))
    assert done.returncode == 0, done.stderr
    assert "0.0.0.0:8101" in done.stdout


def test_a_broken_one_is_not(tmp_path: Path) -> None:
    text = config_of(target("base")).replace("drain_seconds:", "drain_secs:")
    done = check(placed(text, tmp_path))
    assert done.returncode == 2
    assert "drain_secs" in done.stderr


@pytest.mark.triton
@pytest.mark.parametrize("name", DEFENDING)
def test_it_is_accepted_with_its_calibration(
    name: str, tmp_path: Path, triton: EmbeddedTriton
) -> None:
    text = config_of(target(name)).replace(MODEL, "digits_like")
    path = placed(text, tmp_path, triton.grpc_address)
    data = tmp_path / "benign.npz"
    np.savez(data, x=benign(300, seed=1))  # 222 at least for a rate of 1 %
    config = configfile.load(path)
    with (tmp_path / "calibrate.log").open("w") as log:
        run(config, "digits_like", data, console=Console(file=log))
    done = check(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "digits_like" in done.stdout


def test_every_model_is_observed_at_first() -> None:
    models = yaml.safe_load(config_of(target("observe-first")))["models"]
    assert models
    assert {model["mode"] for model in models.values()} == {"observe"}


def test_replicas_that_share_have_a_detector_that_uses_it() -> None:
    config = yaml.safe_load(config_of(target("redis")))
    assert config["history"]["shared"]["url"].startswith("rediss://")
    detectors = [d["name"] for model in config["models"].values() for d in model["detectors"]]
    assert "history" in detectors


@pytest.mark.parametrize("name", ["gpu-dra", "gpu-timeslice"])
def test_a_shared_gpu_is_not_filled(name: str) -> None:
    config = yaml.safe_load(config_of(target(name)))
    assert config["device"] == "cuda"
    assert config["gpu_memory_fraction"] < 0.5
