"""`breakwater calibrate` from the command line to a calibration that is used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from detectors import Evidence
from proxy import artifacts, configfile
from proxy.cli import main
from proxy.parts import build_detectors
from proxy.scoring import Scorer
from tests.defended import MODELS
from tests.images import benign
from tests.learning import DigitsLike, export
from tests.proxy.test_tensors import SPEC
from tuning.attacks import FAMILIES
from tuning.triton import EmbeddedTriton

pytestmark = pytest.mark.triton

Command = Callable[..., int]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "benign.npz"
    np.savez(file, x=benign(150, seed=2))
    return file


@pytest.fixture
def config_file(triton: EmbeddedTriton, tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration of models: the fields of `tests.defended` and those given."""

    def write(models: dict[str, dict[str, Any]], **settings: Any) -> Path:
        listed = {
            name: {**MODELS.get(name, {}), "calibration": f"calibrated/{name}", "fpr": 0.05}
            | fields
            for name, fields in models.items()
        }
        content = {"upstream": triton.grpc_address, "models": listed, **settings}
        file = tmp_path / "breakwater.yaml"
        file.write_text(yaml.safe_dump(json.loads(json.dumps(content))))
        return file

    return write


@pytest.fixture
def calibrate(config_file: Callable[..., Path], data: Path) -> Command:
    """Runs the command on a model; the exit status."""

    def command(name: str, *options: str, file: Path = data, **fields: Any) -> int:
        config = config_file({name: fields})
        words = ["calibrate", "--config", config, "--model", name, "--data", file, *options]
        return main([str(word) for word in words])

    return command


def test_from_the_command_line_to_a_scorer(
    calibrate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ("--source", "made up for [this] test", "--licence", "CC0")
    assert calibrate("digits_like", *said) == 0
    told = capsys.readouterr().err
    assert "written to" in told
    assert "made up for [this] test (licence: CC0), 150 images of 3x32x32" in " ".join(told.split())
    assert "warning:" not in told
    for level in ("input", "output", "views"):
        assert level in told
    config = configfile.load(tmp_path / "breakwater.yaml")
    model = config.models["digits_like"]
    assert model.calibration == tmp_path / "calibrated" / "digits_like"
    found = artifacts.load(model.calibration, "digits_like", model, torch.device("cpu"))
    assert found.provenance.samples == 150
    assert found.provenance.model_version == "1"
    assert found.provenance.groups[0] == "clean"
    lineage = found.provenance.data
    assert lineage is not None
    assert (lineage.licence, lineage.samples, lineage.duplicates.count) == ("CC0", 150, 0)
    assert lineage.sha256 == found.provenance.data_sha256
    assert found.samples is not None
    assert len(found.samples) == 150
    assert len(found.provenance.groups) > 5
    scorer = Scorer(SPEC, model, found, torch.device("cpu"), lambda name, seconds: None)
    assert set(scorer.threshold_bounds) == {"input", "output", "views"}


def test_the_same_seed_gives_the_same_numbers(calibrate: Command, tmp_path: Path) -> None:
    parts = [{"name": "residual"}]
    blobs = []
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / folder
        assert calibrate("digits_like", "--out", str(out), "--seed", seed, detectors=parts) == 0
        blobs.append((out / artifacts.TENSOR_FILE).read_bytes())
    assert blobs[0] == blobs[1] != blobs[2]


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (
            100,
            ("--fpr", "0.01"),
            "has 100 images; a false-positive rate of 0.01 needs at least 222",
        ),
        (41, (), "has 41 images; a false-positive rate of 0.05 needs at least 42"),
        (60, (), "residual cannot be fitted: .*it takes three times as many"),
        (150, ("--fpr", "0"), "must be between 0 and 1"),
        (150, ("--fpr", "1"), "must be between 0 and 1"),
    ],
)
def test_too_few_images_are_told_with_the_number(
    calibrate: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    images: int,
    options: tuple[str, ...],
    message: str,
) -> None:
    file = tmp_path / "few.npz"
    np.savez(file, x=benign(images, seed=2))
    assert calibrate("digits_like_fp16", *options, file=file) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "calibrated").exists()


def test_too_few_for_any_threshold(
    calibrate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "few.npz"
    np.savez(file, x=benign(30, seed=2))
    energy = [{"name": "energy"}]
    assert calibrate("digits_like", "--fpr", "0.2", file=file, detectors=energy) == 2
    assert "needs 30 or more" in capsys.readouterr().err


def test_copies_in_the_data_are_warned_of(
    calibrate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "copies.npz"
    np.savez(file, x=np.concatenate([benign(35, seed=2), *[benign(20, seed=3)] * 6]))
    assert calibrate("digits_like", file=file, detectors=[{"name": "energy"}]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "warning: 65% of the samples are copies" in told
    assert "about 55 of 155 are distinct" in told


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2J", "x" * 501])
def test_what_is_said_of_the_data_is_one_line(
    calibrate: Command, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with pytest.raises(SystemExit):
        calibrate("digits_like", "--source", text)
    assert "one line of at most 500 printable characters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("digits_like", {"detectors": []}, "lists no detectors, so there is nothing to calibrate"),
        ("absent", {"detectors": [{"name": "energy"}]}, "the model absent cannot be asked at"),
        ("digits_like", {"output": {"kind": "none"}}, "kind is none, but margin"),
        ("digits_like", {"inputs": [{"layout": "NHWC"}]}, "has 32 channels"),
        (
            "sequence_sum",
            {"detectors": [{"name": "residual"}, {"name": "energy"}]},
            "stateful or decoupled model cannot be asked",
        ),
        (
            "slow",
            {
                "detectors": [{"name": "energy"}],
                "inputs": [{"name": "image"}, {"name": "delay_ms", "inspect": False}],
            },
            "slow takes delay_ms besides the image",
        ),
        ("failing", {"detectors": [{"name": "energy"}], "inputs": [{"layout": "NCHW"}]}, "says no"),
    ],
)
def test_what_cannot_be_calibrated_is_told(
    calibrate: Command,
    capsys: pytest.CaptureFixture[str],
    name: str,
    fields: dict[str, Any],
    message: str,
) -> None:
    assert calibrate(name, **fields) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_images_the_model_does_not_take(
    calibrate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "grey.npz"
    np.savez(file, x=benign(150, seed=2)[:, :1])
    assert calibrate("digits_like", file=file) == 2
    assert "the images do not fit model digits_like" in capsys.readouterr().err


def test_words_that_are_missing(
    config_file: Callable[..., Path], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(config_file({"digits_like": {}}))
    assert main(["calibrate", "--model", "digits_like", "--data", str(data)]) == 2
    assert "calibrate needs --config FILE" in capsys.readouterr().err
    assert main(["calibrate", "--config", config, "--model", "other", "--data", str(data)]) == 2
    assert "no model 'other' in the configuration (there: digits_like)" in capsys.readouterr().err


def test_a_triton_that_is_not_there(calibrate: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate("digits_like", "--upstream", "127.0.0.1:1") == 2
    assert "is Triton running there?" in capsys.readouterr().err


def test_serving_refuses_what_was_calibrated_for_something_else(
    calibrate: Command, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate("digits_like_fp16") == 0
    changed = {"digits_like_fp16": {"detectors": [{"name": "energy"}]}}
    options = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    assert main(["serve", "--config", str(config_file(changed)), *options]) == 2
    told = capsys.readouterr().err
    assert "it is stale: `detectors` of model digits_like_fp16" in told
    assert "Run `breakwater calibrate --config FILE --model digits_like_fp16" in told


# -- a user's own benign groups, and a local copy of the model -------------------------------------


def test_a_benign_group_of_ones_own_stays_quiet(calibrate: Command, tmp_path: Path) -> None:
    parts = [{"name": "residual"}]
    grain = np.random.default_rng(0).normal(0, 0.08, (150, 3, 32, 32))
    noisy = (benign(150, seed=6) + grain).clip(0, 1).astype(np.float32)
    np.savez(tmp_path / "noisy.npz", x=noisy)
    flagged = []
    for options in ((), ("--group", f"camera_7={tmp_path / 'noisy.npz'}")):
        assert calibrate("digits_like", *options, detectors=parts) == 0
        model = configfile.load(tmp_path / "breakwater.yaml").models["digits_like"]
        assert model.calibration is not None
        found = artifacts.load(model.calibration, "digits_like", model, torch.device("cpu"))
        assert ("camera_7" in found.provenance.groups) == bool(options)
        assert len(found.provenance.data_sha256.split()) == 1 + bool(options)
        assert set(found.provenance.group_data) == ({"camera_7"} if options else set())
        (residual,) = build_detectors(model)
        residual.load_state(found.states["residual"], torch.device("cpu"))
        rule = found.calibration.rule([["residual"]], 0.05)
        fused = rule.score({"residual": residual.score(Evidence(torch.from_numpy(noisy)))})
        flagged.append((fused > rule.threshold.value).float().mean().item())
    without, with_group = flagged
    assert with_group < 0.12 < 0.9 < without


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("clean={data}", "--group clean: the name is that of a built-in group"),
        ("mine={few}", "has 20 images; a false-positive rate of 0.05 needs at least 42"),
        ("mine={absent}", "absent.npz"),
    ],
)
def test_groups_that_cannot_be_used(
    calibrate: Command,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    group: str,
    message: str,
) -> None:
    few = tmp_path / "few.npz"
    np.savez(few, x=benign(20, seed=2))
    option = group.format(data=data, few=few, absent=tmp_path / "absent.npz")
    assert calibrate("digits_like", "--group", option, detectors=[{"name": "residual"}]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_group_without_a_name(calibrate: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        calibrate("digits_like", "--group", "file.npz")
    assert "NAME=FILE" in capsys.readouterr().err


def test_a_local_copy_of_the_model_adds_a_learned_score(
    calibrate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = export(DigitsLike(), tmp_path / "copy.pt")
    # The rate asked for counts throughout; these images do not support the configuration's.
    options = ("--model-file", str(copy), "--fpr", "0.05")
    assert calibrate("digits_like", *options, fpr=0.001) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "kinds of attack the learned score has not seen" in told
    for family in FAMILIES:
        assert f" {family} " in told
    model = configfile.load(tmp_path / "breakwater.yaml").models["digits_like"]
    model = model.model_copy(update={"fpr": 0.05})
    assert model.calibration is not None
    found = artifacts.load(model.calibration, "digits_like", model, torch.device("cpu"))
    learned = {learner.names for learner in found.calibration.learners}
    assert len(learned) == 2  # the levels of two detectors or more
    scorer = Scorer(SPEC, model, found, torch.device("cpu"), lambda name, seconds: None)
    assert set(scorer.threshold_bounds) == {"input", "output", "views"}


def test_a_copy_of_another_model_is_refused(
    calibrate: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = DigitsLike()
    other.weights.data = other.weights.data.flip(1).contiguous()
    copy = export(other, tmp_path / "copy.pt")
    assert calibrate("digits_like", "--model-file", str(copy)) == 2
    assert "the model file gives the class digits_like gives for" in capsys.readouterr().err
