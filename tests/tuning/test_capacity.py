"""`breakwater tune --capacity` against a real Triton, and what it refuses."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from proxy.cli import main
from proxy.config import Config
from proxy.errors import ConfigError
from tests.defended import MODELS
from tests.images import benign
from tuning import capacity, knee, variants
from tuning.capacity import run
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton
MODEL = "digits_like"


def config(triton: EmbeddedTriton, calibrations: Path, **changes: object) -> Config:
    model = {
        **MODELS[MODEL],
        "fpr": 0.05,
        "action": "purify",
        "purifiers": ({"name": "median"},),
        "calibration": calibrations / MODEL,
        **changes,
    }
    return Config.model_validate({"upstream": triton.grpc_address, "models": {MODEL: model}})


@pytest.mark.timeout(300)
def test_measures_what_was_asked_for_and_says_what_to_take(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickest = knee.Effort(idle_rounds=1, step_s=0.1, repeats=1, precision=1.0)
    monkeypatch.setattr(capacity, "QUICK", quickest)
    monkeypatch.setattr(knee, "LONGEST_STEP_S", 0.5)
    kept = ("pass-through", "enforce, 2 workers")
    chosen = [
        variant
        for variant in variants.variants(config(triton, calibrations).models[MODEL])
        if variant.name in kept
    ]
    monkeypatch.setattr(capacity, "variants", lambda model: chosen)
    data = tmp_path / "x.npz"
    np.savez(data, x=benign(20, 5))
    said = StringIO()
    out = tmp_path / "out"
    status = run(
        config(triton, calibrations), MODEL, data=data, budget_ms=1e6, out=out, quick=True,
        console=Console(file=said, width=120),
    )  # fmt: skip
    assert status == 0
    written = json.loads((out / "capacity.json").read_text())
    rows = {row["variant"]: row for row in written["rows"]}
    assert tuple(rows) == kept
    assert rows["pass-through"]["added_p50_ms"] == 0
    assert rows["pass-through"]["suspicious"] is None
    defended = rows["enforce, 2 workers"]
    assert defended["idle_p50_ms"] > 0
    assert defended["cpu_ms"] > rows["pass-through"]["cpu_ms"]
    assert defended["suspicious"] < 0.5
    assert written["recommendation"].startswith("Within 1e+06 ms take 'enforce, 2 workers'")
    assert {step["variant"] for step in written["steps"]} == set(kept)
    with Image.open(out / "capacity.png") as picture:
        assert min(picture.size) > 400
    assert "enforce, 2 workers" in said.getvalue()


def test_an_unknown_model_is_told_with_those_there_are(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no model 'other' in the configuration .there: digits"):
        run(config(triton, calibrations), "other", out=tmp_path)


def test_a_missing_calibration_is_told_with_the_remedy(
    triton: EmbeddedTriton, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"missing\. Run `breakwater calibrate"):
        run(config(triton, tmp_path), MODEL, out=tmp_path)


def test_without_triton_it_asks_whether_it_runs(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path
) -> None:
    there = config(triton, calibrations)
    gone = there.model_copy(update={"upstream": "127.0.0.1:1"})
    with pytest.raises(ConfigError, match=r"cannot be asked at 127.0.0.1:1: .* is Triton running"):
        run(gone, MODEL, out=tmp_path)


def test_the_command_line_needs_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", "--capacity", "--model", MODEL, "--out", str(tmp_path)]) == 2
    assert "tune needs --config FILE" in capsys.readouterr().err


def test_the_command_line_finds_the_model(
    triton: EmbeddedTriton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"upstream": triton.grpc_address, "models": {MODEL: {}}}))
    assert (
        main(
            ["tune", "--capacity", "--config", str(file), "--model", MODEL, "--out", str(tmp_path)]
        )
        == 2
    )
    assert "lists no detectors" in capsys.readouterr().err
