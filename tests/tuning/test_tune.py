"""`breakwater tune` against a real Triton: from recorded scores to a policy that is served."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from rich.console import Console

from proxy import artifacts, configfile, evaluation
from proxy.cli import main
from proxy.config import Model
from proxy.devices import use_device
from proxy.errors import ConfigError
from proxy.evaluation import Evaluation, Kind
from tests.defended import MODELS
from tests.images import benign
from tests.tuning.search import scene
from tuning import tune
from tuning.narrow import Whole
from tuning.search import promises
from tuning.search.basis import Given
from tuning.search.palette import make
from tuning.triton import EmbeddedTriton
from tuning.tune import Wish, run

pytestmark = [pytest.mark.triton, pytest.mark.timeout(300)]
MODEL = "digits_like"
DETECTORS = ("residual", "margin")
WAY = "median(size=3)"


@dataclass(frozen=True)
class Files:
    config: Path
    evaluation: Path
    data: Path
    out: Path

    def given(self) -> Given:
        config = configfile.load(self.config)
        return Given(config, MODEL, self.data, self.out, evaluation=self.evaluation, quick=True)


@pytest.fixture
def files(
    triton: EmbeddedTriton, calibrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Files:
    """A configuration, and an evaluation whose benign scores are those of real images."""
    monkeypatch.setattr(tune, "QUICK_REQUESTS", 20)
    monkeypatch.setattr(promises, "MOST_IMAGES", 60)
    config = tmp_path / "breakwater.yaml"
    every = Model.model_validate({**MODELS[MODEL], "calibration": "c"})
    few = every.model_copy(update={"detectors": every.detectors[:2]})  # fewer sidecars to start
    own = Whole(calibrations / MODEL, MODEL, every).write(tmp_path / "own", few)
    model = {
        "detectors": [{"name": name} for name in DETECTORS],
        "calibration": str(own),
        "fpr": 0.05,
        "mode": "enforce",
        "action": "purify",
        "purifiers": [{"name": "median", "params": {"size": 3}}],
    }
    config.write_text(
        "# ours\n" + yaml.safe_dump({"upstream": triton.grpc_address, "models": {MODEL: model}})
    )
    found = configfile.load(config).models[MODEL]
    scores = artifacts.load(own, MODEL, found, use_device("cpu")).calibration
    folder = scene.write(tmp_path / "evaluation", recorded(scores.held(scores.names), scores.names))
    data = tmp_path / "data.npz"
    np.savez(data, x=benign(80, seed=77), y=np.arange(80) % 10)
    return Files(config, folder, data, tmp_path / "out")


def recorded(held: dict[str, torch.Tensor], names: tuple[str, ...]) -> Evaluation:
    rng = np.random.default_rng(1)
    kinds = [
        Kind(evaluation.BENIGN, group, scores.numpy(), right=answers(rng, len(scores), 0.9, 0.9))
        for group, scores in held.items()
    ]
    clean = held["clean"].numpy()
    spread = clean.std(0)
    for attack, shift in (("fgsm8", 9.0), ("pgd8", 6.0), ("square8", 9.0)):
        moved = (clean + shift * spread).astype(np.float32)
        right = answers(rng, len(clean), 0.0, 0.6)
        kinds.append(Kind(evaluation.ATTACK, attack, moved, right=right))
    threats = {"fgsm8": "oblivious", "pgd8": "oblivious", "square8": "black-box query"}
    about = {"model": MODEL, "threats": threats}
    return Evaluation(names, tuple(kinds), ("none", WAY), about, {"model": MODEL, "rows": []})


def answers(rng: np.random.Generator, count: int, *shares: float) -> npt.NDArray[np.uint8]:
    return (rng.random((count, len(shares))) < shares).astype(np.uint8)


def test_from_scores_to_a_policy_that_is_served(files: Files) -> None:
    said = StringIO()
    wish = Wish(1e4, 0.3, 0.3, trials=40, compare=files.config)
    status = run(files.given(), wish, files.config, console=Console(file=said, width=100))
    assert status == 0
    found = json.loads((files.out / "tune.json").read_text())
    assert len(found["rows"]) == 40
    assert {row["measured"] for row in found["costs"]} >= {"pass-through"}
    figures = {row["figure"] for row in found["promises"]}
    assert {"p99", "false-positive rate, fresh images"} <= figures
    assert all("met" in row for row in found["promises"] if row["figure"].startswith("p99"))
    assert found["comparison"][0]["figure"] == "harm, all attacks"
    assert any(row["unseen"] for row in found["attacks"])
    recommended = found["recommended"][0]
    assert recommended["why"].count(". ") == 1
    assert "block" not in recommended["policy"]
    policy = configfile.load(files.out / "policy.yaml").models[MODEL]
    assert policy.calibration is not None
    artifacts.load(policy.calibration, MODEL, policy, use_device("cpu"))
    assert (files.out / "policy.yaml").read_text().startswith("# ours\n")
    assert (files.out / "tune.png").stat().st_size > 10_000
    text = re.sub(r"\s+", " ", said.getvalue())
    assert "recommended one, on what the search did not see" in text


def test_where_nothing_fits_the_candidates_are_kept_and_nothing_is_recommended(
    files: Files,
) -> None:
    # No limit on latency: what is measured may come out below pass-through's.
    scene.write(files.evaluation, recorded({"clean": torch.full((100, 2), 1e3)}, DETECTORS))
    said = StringIO()
    status = run(
        files.given(), Wish(1e3, 0.3, 0.3, trials=20), files.config,
        console=Console(file=said, width=200),
    )  # fmt: skip
    assert status == 1
    assert "false-positive rate binds. Nearest:" in said.getvalue()
    assert len(json.loads((files.out / "tune.json").read_text())["rows"]) == 20
    assert not (files.out / "policy.yaml").exists()


def test_a_detector_that_was_not_recorded(files: Files) -> None:
    fewer = recorded({"clean": torch.randn(100, 1)}, DETECTORS[:1])
    scene.write(files.evaluation, fewer)
    with pytest.raises(ConfigError, match="has no scores of margin: evaluate again"):
        run(files.given(), Wish(), files.config)


def test_an_evaluation_of_another_model(files: Files) -> None:
    scene.write(files.evaluation, scene.made())
    with pytest.raises(ConfigError, match="is of model 'm', not 'digits_like'"):
        run(files.given(), Wish(), files.config)


def test_a_rate_the_calibration_does_not_support(files: Files) -> None:
    with pytest.raises(ConfigError, match=r"supports false-positive rates from .* --max-fpr"):
        run(files.given(), Wish(max_fpr=1e-4), files.config)


def test_too_little_data_for_a_palette(files: Files) -> None:
    given = Given(configfile.load(files.config), MODEL, files.data, files.out, quick=True)
    with pytest.raises(ConfigError, match=r"has 80 samples: to calibrate .* takes about \d+; or"):
        make(given, 0.01, tune.progress_on(Console(file=StringIO())))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_fpr": 0.0}, "--max-fpr must be"),
        ({"max_fpr": float("nan")}, "--max-fpr must be"),
        ({"max_loss": -0.1}, "--max-accuracy-loss must be"),
        ({"added_p99_ms": 0.0}, "--budget-ms must be"),
        ({"added_p99_ms": float("nan")}, "--budget-ms must be"),
    ],
)
def test_limits_that_are_none(limits: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Wish(**limits)  # type: ignore[arg-type]


def test_the_command_line_says_what_it_needs(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--model", MODEL, "--out", str(files.out)]
    assert main(["tune", *out]) == 2
    assert "tune needs --config FILE" in capsys.readouterr().err
    assert main(["tune", "--config", str(files.config), *out]) == 2
    assert "tune needs --data FILE.npz" in capsys.readouterr().err
    data = ["--data", str(files.data)]
    assert main(["tune", "--config", str(files.config), *out[2:], *data, "--model", "other"]) == 2
    assert "no model 'other'" in capsys.readouterr().err
