"""Which variants are measured, and the files they are started from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy import artifacts, configfile
from proxy.config import Config, Model
from proxy.devices import use_device
from proxy.errors import ConfigError
from tests.defended import MODELS
from tuning.narrow import Whole
from tuning.variants import variants

MODEL = "digits_like"


def model(**changes: object) -> Model:
    return Model.model_validate({**MODELS[MODEL], "fpr": 0.05, "calibration": "c", **changes})


def test_from_nothing_to_everything() -> None:
    chosen = variants(model())
    assert [variant.name for variant in chosen] == [
        "pass-through",
        "observe",
        "enforce, input only",
        "enforce, cascade",
        "enforce, sequential",
        "enforce",
        "enforce, 2 workers",
    ]
    assert [v.strength for v in chosen] == sorted(v.strength for v in chosen)
    assert chosen[0].model is None
    by_name = {v.name: v.model for v in chosen if v.model}
    assert [d.name for d in by_name["enforce, input only"].detectors] == ["residual"]
    assert by_name["enforce, cascade"].cascade is not None
    assert by_name["enforce"].cascade is None
    assert by_name["enforce, sequential"].dispatch == "sequential"
    assert by_name["observe"].mode == "observe"


def test_without_dear_detectors_there_is_nothing_to_leave_out() -> None:
    names = [v.name for v in variants(model(detectors=({"name": "residual"},)))]
    assert "enforce, input only" not in names
    assert "enforce, cascade" not in names


def test_the_configured_cascade_is_kept() -> None:
    chosen = variants(model(cascade={"clean": 0.3}))
    cascade = next(v.model for v in chosen if v.name == "enforce, cascade")
    assert cascade is not None
    assert cascade.cascade is not None
    assert cascade.cascade.clean == 0.3


def test_a_model_without_detectors_has_no_variants() -> None:
    with pytest.raises(ConfigError, match="lists no detectors"):
        variants(Model())


@pytest.mark.triton
def test_every_file_is_one_that_serve_takes(calibrations: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"a secret of the deployment")
    settings = {
        "upstream": "127.0.0.1:8001",
        "listen": "0.0.0.0:8101",
        "audit": {"path": "/var/log/audit.jsonl"},
        "history": {"key_file": key, "shared": {"url": "redis://127.0.0.1:6379"}},
        "unlisted_models": "refuse",
        "models": {MODEL: model(calibration=calibrations / MODEL), "other": Model()},
    }
    config = Config.model_validate(settings)
    whole = Whole(calibrations / MODEL, MODEL, config.models[MODEL])
    for variant in variants(config.models[MODEL]):
        folder = tmp_path / variant.name
        folder.mkdir()
        written = configfile.load(variant.write(folder, config, whole))
        assert written.listen == written.admin == "127.0.0.1:0"
        assert written.history.shared is None
        assert written.audit.path == folder / "audit.jsonl"
        assert set(written.models) == ({MODEL} if variant.model else set())
        for name, defended in written.models.items():
            assert defended.calibration is not None
            artifacts.load(defended.calibration, name, defended, use_device("cpu"))


@pytest.mark.triton
def test_the_real_calibration_stays_as_it_is(calibrations: Path, tmp_path: Path) -> None:
    file = calibrations / MODEL / artifacts.JSON_FILE
    before = json.loads(file.read_text())
    config = Config(models={MODEL: model(calibration=calibrations / MODEL)})
    cheap = next(v for v in variants(config.models[MODEL]) if v.name == "enforce, input only")
    cheap.write(tmp_path, config, Whole(calibrations / MODEL, MODEL, config.models[MODEL]))
    assert json.loads(file.read_text()) == before


def test_a_calibration_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    config = Config(models={MODEL: model(calibration=tmp_path / "none")})
    whole = Whole(tmp_path / "none", MODEL, config.models[MODEL])
    with pytest.raises(ConfigError, match="none"):
        variants(config.models[MODEL])[1].write(tmp_path, config, whole)
