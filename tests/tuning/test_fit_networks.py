"""`breakwater fit` from the command line to networks that are served, against the real Triton."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import detectors
import purifiers
from proxy import artifacts, configfile, weights
from proxy.cli import main
from proxy.scoring import Scorer
from tests.defended import MODELS
from tests.images import benign
from tests.learning import DigitsLike, Repair, Roughness, Smooth, SmoothRecipe, export
from tests.proxy.test_tensors import SPEC
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

CPU = torch.device("cpu")
SERVED = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
PARTS = {"detectors": [{"name": "roughness"}], "purifiers": [{"name": "smooth"}]}
GUIDED = {**PARTS, "purifiers": [{"name": "smooth"}, {"name": "repair"}]}

Command = Callable[..., int]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(detectors.DETECTORS, "roughness", Roughness)
    monkeypatch.setitem(purifiers.PURIFIERS, "smooth", Smooth)
    monkeypatch.setitem(purifiers.PURIFIERS, "repair", Repair)


@pytest.fixture
def config(triton: EmbeddedTriton, tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration of one model: the fields of `tests.defended` and those given."""

    def write(name: str, **fields: Any) -> Path:
        listed = {**MODELS.get(name, {}), "calibration": "calibrated", "fpr": 0.1} | fields
        file = tmp_path / "breakwater.yaml"
        content = {"upstream": triton.grpc_address, "models": {name: listed}}
        file.write_text(yaml.safe_dump(json.loads(json.dumps(content))))
        return file

    return write


@pytest.fixture
def command(config: Callable[..., Path], tmp_path: Path) -> Command:
    """Runs `fit` or `calibrate` on a model; the exit status."""

    def run(word: str, *options: object, model: str = "digits_like", **fields: Any) -> int:
        data = tmp_path / f"{word}.npz"
        if not data.exists():
            np.savez(data, x=benign(90, seed=len(word)))
        file = config(model, **fields)
        words = [word, "--config", file, "--model", model, "--data", data, *options]
        return main([str(each) for each in words])

    return run


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_from_the_command_line_to_a_scorer(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = export(DigitsLike(), tmp_path / "copy.pt2")
    assert command("fit", "--model-file", copy, **GUIDED) == 0
    text = told(capsys)
    for word in ("smooth", "repair", "written to", "now calibrate"):
        assert word in text
    assert command("calibrate", **GUIDED) == 0
    assert "trained" not in told(capsys)
    folder = tmp_path / "calibrated"
    digest = weights.read(folder)["smooth"].sha256
    model = configfile.load(tmp_path / "breakwater.yaml").models["digits_like"]
    found = artifacts.load(folder, "digits_like", model, CPU)
    assert found.provenance.weights == {"smooth": digest}  # no score depends on `repair`
    assert set(found.networks) == {"smooth", "repair"}
    Scorer(SPEC, model, found, CPU, lambda name, seconds: None)


def test_interrupted_the_same_command_goes_on(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = SmoothRecipe()
    for part in (Smooth, Roughness):
        monkeypatch.setattr(part, "recipe", recipe)
    monkeypatch.setattr(SmoothRecipe, "interrupt_at", 5)
    before = signal.getsignal(signal.SIGINT)
    assert command("fit", **PARTS) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "the same command goes on from here" in told(capsys)
    folder = tmp_path / "calibrated" / "weights"
    assert [path.name for path in folder.iterdir()] == ["smooth.partial"]
    assert command("fit", **PARTS) == 0
    assert recipe.calls == 12
    assert command("fit", "--out", tmp_path / "whole", **PARTS) == 0
    files = [f / "smooth.safetensors" for f in (folder, tmp_path / "whole" / "weights")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert command("fit", **PARTS) == 0
    assert "kept as it was" in told(capsys)
    assert recipe.calls == 24


@pytest.fixture
def calibrated(command: Command, tmp_path: Path) -> Path:
    """The folder of a model that was fitted and calibrated."""
    assert command("fit", "--steps-scale", 0.2, **PARTS) == 0
    assert command("calibrate", **PARTS) == 0
    return tmp_path / "calibrated"


def refusal(file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["serve", "--config", str(file), *SERVED]) == 2
    return told(capsys)


def test_serving_without_the_weights(calibrated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (calibrated / "weights" / "weights.json").unlink()
    text = refusal(calibrated.parent / "breakwater.yaml", capsys)
    assert "smooth (for roughness, smooth) is not trained. Run `breakwater fit" in text


def test_serving_with_weights_that_were_tampered_with(
    calibrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = calibrated / "weights" / "smooth.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    text = refusal(calibrated.parent / "breakwater.yaml", capsys)
    assert "it is not the file that weights.json describes. Run `breakwater fit" in text


def test_serving_with_other_weights_than_those_calibrated_with(
    command: Command, calibrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("fit", "--seed", 7, "--steps-scale", 0.2, **PARTS) == 0
    capsys.readouterr()
    text = refusal(calibrated.parent / "breakwater.yaml", capsys)
    assert "the weights of smooth are not those it was made with. Run `breakwater calibrate" in text


def test_a_purifier_may_be_trained_anew(command: Command, calibrated: Path, tmp_path: Path) -> None:
    """What is served does not change the scores."""
    copy = export(DigitsLike(), tmp_path / "copy.pt")
    for seed in (0, 1):
        options = ("--only", "repair", "--model-file", copy, "--seed", seed)
        assert command("fit", *options, "--steps-scale", 0.2, **GUIDED) == 0
        model = configfile.load(tmp_path / "breakwater.yaml").models["digits_like"]
        assert "repair" in artifacts.load(calibrated, "digits_like", model, CPU).networks


def test_calibrating_without_the_weights(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("calibrate", **PARTS) == 2
    assert "smooth (for roughness) is not trained. Run `breakwater fit" in told(capsys)


def test_calibrating_on_the_images_trained_on_is_told(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("fit", "--steps-scale", 0.2, **PARTS) == 0
    (tmp_path / "fit.npz").rename(tmp_path / "calibrate.npz")
    assert command("calibrate", **PARTS) == 0
    assert "these very images trained smooth" in told(capsys)


def test_input_only_parts_need_no_answers(command: Command, tmp_path: Path) -> None:
    """A stateful model cannot be asked, so nobody knows its classes."""
    options = ("--steps-scale", 0.1)
    fields = {"output": {"name": "sum"}, **PARTS}
    assert command("fit", *options, model="sequence_sum", **fields) == 0
    assert weights.read(tmp_path / "calibrated")["smooth"].plan.classes == 0


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, (), "no detectors or purifiers that use a trained network: there is nothing to fit"),
        (
            GUIDED,
            (),
            "repair is trained against a local copy of the model: give one with --model-file FILE "
            "(.pt2, .pt or .onnx), or train only the others with --only smooth",
        ),
        (PARTS, ("--only", "rough"), "--only rough: there are roughness, smooth"),
        (PARTS, ("--steps-scale", "0"), "--steps-scale must be over 0"),
        (PARTS, ("--upstream", "127.0.0.1:1"), "is Triton running there?"),
        (GUIDED, ("--model-file", "absent.pt2"), "absent.pt2 cannot be read"),
    ],
)
def test_what_cannot_be_fitted_is_told(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert command("fit", *options, **fields) == 2
    assert message in told(capsys)
    assert not (tmp_path / "calibrated").exists()


def test_guided_parts_need_a_model_that_can_be_asked(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = export(DigitsLike(), tmp_path / "copy.pt2")
    fields = {"output": {"name": "sum"}, **GUIDED}
    assert command("fit", "--model-file", copy, model="sequence_sum", **fields) == 2
    assert "repair: training needs the model's answers" in told(capsys)


def test_a_copy_of_another_model_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = DigitsLike()
    with torch.no_grad():
        other.weights.neg_()
    copy = export(other, tmp_path / "copy.pt2")
    assert command("fit", "--model-file", copy, **GUIDED) == 2
    assert "Check that it is the served version" in told(capsys)


def test_words_that_are_missing(
    config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(tmp_path / "x.npz")
    assert main(["fit", "--model", "digits_like", "--data", data]) == 2
    assert "fit needs --config FILE" in told(capsys)
    file = str(config("digits_like", **PARTS))
    assert main(["fit", "--config", file, "--model", "other", "--data", data]) == 2
    assert "no model 'other' in the configuration (there: digits_like)" in told(capsys)
