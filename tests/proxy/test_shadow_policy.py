"""The second policy of a model: read from its file, or refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proxy import configfile
from proxy.config import Config, Model
from proxy.defences import Defences
from proxy.errors import ConfigError
from proxy.metrics import Metrics
from proxy.shadow_policy import load, lookable

RESIDUAL, HISTORY = {"name": "residual"}, {"name": "history"}
PURIFIED = {"action": "purify", "purifiers": [{"name": "median"}], "aggregate": {"copies": 2}}


def entry(*detectors: dict[str, str], **fields: Any) -> dict[str, Any]:
    return {"calibration": "calibration", "detectors": list(detectors), **fields}


def model(folder: Path, *detectors: dict[str, str]) -> Model:
    settings = entry(*(detectors or (RESIDUAL,)), shadow={"policy": folder / "second.yaml"})
    return Model.model_validate(settings)


def second(folder: Path, *detectors: dict[str, str], name: str = "m", **fields: Any) -> None:
    models = {name: entry(*detectors, **fields)}
    (folder / "second.yaml").write_text(json.dumps({"models": models}))


def loaded(folder: Path, first: Model) -> Model:
    assert first.shadow is not None
    return load("m", first, first.shadow)


def test_the_entry_of_the_same_model_is_the_policy(tmp_path: Path) -> None:
    second(tmp_path, RESIDUAL, {"name": "margin"}, fpr=0.3, mode="enforce", **PURIFIED)
    found = loaded(tmp_path, model(tmp_path))
    assert (found.fpr, len(found.detectors)) == (0.3, 2)
    assert found.calibration == tmp_path / "calibration"  # relative to its own file
    looking = lookable(found)
    assert (looking.mode, looking.action, looking.purifiers) == ("observe", "purify", ())
    assert looking.aggregate is None


def test_a_shadows_own_shadow_is_nobodys(tmp_path: Path) -> None:
    second(tmp_path, RESIDUAL, shadow={"policy": "second.yaml"})
    assert lookable(loaded(tmp_path, model(tmp_path))).shadow is None


def test_the_history_stays_with_the_policy_in_force(tmp_path: Path) -> None:
    second(tmp_path, RESIDUAL, HISTORY, query_attacks={"fpr": 0.1})
    found = lookable(loaded(tmp_path, model(tmp_path, RESIDUAL, HISTORY)))
    assert [part.name for part in found.detectors] == ["residual"]
    assert not found.remembers
    with pytest.raises(ConfigError, match=r"models\.m\.shadow: the detector `history` cannot be"):
        loaded(tmp_path, model(tmp_path))
    second(tmp_path, HISTORY)
    with pytest.raises(ConfigError, match="another detector than `history`"):
        loaded(tmp_path, model(tmp_path, RESIDUAL, HISTORY))


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.m\.shadow: .*second\.yaml"):
        loaded(tmp_path, model(tmp_path))
    second(tmp_path, RESIDUAL, name="n")
    with pytest.raises(ConfigError, match=r"'second\.yaml' has no entry models\.m"):
        loaded(tmp_path, model(tmp_path))
    second(tmp_path)
    with pytest.raises(ConfigError, match="has no detectors"):
        loaded(tmp_path, model(tmp_path))
    (tmp_path / "second.yaml").write_text("models: {m: {nonsense: 1}}")
    with pytest.raises(ConfigError, match=r"models\.m\.shadow: .*nonsense"):
        loaded(tmp_path, model(tmp_path))


def test_a_shadow_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="shadow needs detectors"):
        Model.model_validate({"shadow": {"policy": "second.yaml"}})
    with pytest.raises(ValidationError, match=r"shadow\.share"):
        Model.model_validate(entry(RESIDUAL, shadow={"policy": "p", "share": 0}))


@pytest.mark.triton
def test_a_calibration_that_does_not_fit_is_refused_at_start(
    tmp_path: Path, calibrations: Path
) -> None:
    path = tmp_path / "main.yaml"
    good = entry(RESIDUAL, HISTORY) | {"calibration": str(calibrations / "digits_like_again")}
    good |= {"fpr": 0.05}
    for fields, message in (
        ({"fpr": 0.0001}, r"models\.digits_like_again\.shadow: .*benign group"),
        ({"calibration": "nowhere"}, r"models\.digits_like_again\.shadow: calibration .*nowhere"),
        ({"detectors": [RESIDUAL]}, r"models\.digits_like_again\.shadow: .*stale"),
    ):
        models = {"digits_like_again": {**good, **fields}}
        (tmp_path / "second.yaml").write_text(json.dumps({"models": models}))
        main = {"digits_like_again": {**good, "shadow": {"policy": "second.yaml"}}}
        path.write_text(json.dumps({"models": main}))
        config: Config = configfile.load(path)
        with pytest.raises(ConfigError, match=message):
            Defences(config, Metrics())
