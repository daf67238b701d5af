"""A calibration of some of the detectors, from that of all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from proxy import artifacts
from proxy.config import Model
from proxy.devices import use_device
from proxy.errors import ConfigError
from tests.defended import MODELS
from tests.tuning.search import scene
from tuning.narrow import Whole, narrowed
from tuning.supervise import learn

MODEL = "digits_like"


def model(*names: str, **params: object) -> Model:
    detectors = [{"name": name, "params": params} for name in names]
    return Model.model_validate(
        {**MODELS[MODEL], "fpr": 0.05, "calibration": "c", "detectors": detectors}
    )


def whole(calibrations: Path) -> Whole:
    every = Model.model_validate({**MODELS[MODEL], "fpr": 0.05, "calibration": "c"})
    return Whole(calibrations / MODEL, MODEL, every)


@pytest.mark.triton
def test_it_serves_as_if_it_had_been_made_for_these(calibrations: Path, tmp_path: Path) -> None:
    fewer = model("margin", "residual")
    folder = whole(calibrations).write(tmp_path / "deep" / "folder", fewer)
    found = artifacts.load(folder, MODEL, fewer, use_device("cpu"))
    every = whole(calibrations)
    before = artifacts.load(every.folder, MODEL, every.model, use_device("cpu"))
    assert found.calibration.names == ("margin", "residual")
    assert set(found.states) == {"margin", "residual"}
    assert found.provenance.data_sha256 == before.provenance.data_sha256
    rule, wanted = (
        each.calibration.rule([("margin", "residual")], 0.05) for each in (found, before)
    )
    assert rule.threshold == wanted.threshold
    with pytest.raises(ConfigError, match="stale"):
        artifacts.load(folder, MODEL, every.model, use_device("cpu"))


@pytest.mark.triton
def test_what_it_has_not_or_has_otherwise(calibrations: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has no detector srm"):
        whole(calibrations).write(tmp_path / "out", model("srm"))
    other = Model.model_validate(
        {
            "calibration": "c",
            "fpr": 0.05,
            "detectors": [{"name": "feature_squeezing", "params": {"views": [{"name": "median"}]}}],
        }
    )
    with pytest.raises(ConfigError, match="feature_squeezing was calibrated with"):
        whole(calibrations).write(tmp_path / "out", other)


def test_learned_scores_stay_where_all_their_detectors_do() -> None:
    calibration = scene.calibration(300)
    generator = torch.Generator().manual_seed(1)
    attacked = {"a": {n: torch.randn(50, generator=generator) for n in scene.PALETTE}}
    levels = {"input": scene.PALETTE[:2], "views": scene.PALETTE}
    learned = learn(calibration, levels, attacked)
    kept = narrowed(learned, [*scene.PALETTE[:3]])
    assert [each.names for each in kept.learners] == [scene.PALETTE[:2]]
    assert kept.names == scene.PALETTE[:3]
    names = [scene.PALETTE[:2]]
    scores = {name: torch.randn(20, generator=generator) for name in scene.PALETTE[:2]}
    torch.testing.assert_close(
        kept.rule(names, 0.05).score(scores), learned.rule(names, 0.05).score(scores)
    )
