"""The file that is written is the user's own, but for one policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy import configfile
from proxy.config import Config, Part
from proxy.errors import ConfigError
from tests.defended import MODELS
from tuning.narrow import Whole
from tuning.search.space import Candidate, Space
from tuning.search.written import write_policy

pytestmark = pytest.mark.triton
MODEL = "digits_like"
TEXT = """\
# The whole file is ours.
upstream: 127.0.0.1:8001   # Triton
audit: {{path: audit.jsonl}}
history:
  key_file: key
models:
  7: {{mode: observe}}     # a number for a name
  digits_like:
    # tuned by hand
    calibration: {calibration}
    fpr: 0.05   # much
    mode: observe
    budget_ms: 7
    detectors:
      - {{name: residual}}
      - name: margin
      - name: energy
      - name: feature_squeezing
    cascade: {{clean: 0.5}}
    purifiers:
      - name: median
"""
CHAINS = {"jpeg": (Part(name="jpeg", params={"quality": 60}),)}


@pytest.fixture
def file(calibrations: Path, tmp_path: Path) -> Path:
    (tmp_path / "key").write_bytes(b"a secret of the deployment")
    path = tmp_path / "breakwater.yaml"
    path.write_text(TEXT.format(calibration=calibrations / MODEL))
    return path


def written(file: Path, candidate: Candidate) -> tuple[str, Config]:
    config = configfile.load(file)
    model = config.models[MODEL]
    assert model.calibration is not None
    policy = Space(model, CHAINS, (0.05,)).policy(candidate)
    out = file.parent / "out"
    found = write_policy(out, file, config, Whole(model.calibration, MODEL, model), policy)
    return found.read_text(), configfile.load(found)


def test_one_policy_changes_and_every_comment_stays(file: Path) -> None:
    chosen = Candidate(("residual", "margin"), 0.1, None, "purify", "jpeg", "sequential")
    text, config = written(file, chosen)
    for comment in ("# The whole file is ours.", "# Triton", "# tuned by hand", "# a number"):
        assert comment in text
    model = config.models[MODEL]
    assert (model.mode, model.action, model.dispatch) == ("enforce", "purify", "sequential")
    assert [part.name for part in model.detectors] == ["residual", "margin"]
    assert model.purifiers == CHAINS["jpeg"]
    assert (model.fpr, model.budget_ms, model.cascade) == (0.1, 7, None)
    assert config.models["7"].mode == "observe"


def test_paths_still_lead_where_they_did(file: Path) -> None:
    chosen = Candidate(("residual",), 0.05, None, "observe", "none", "speculative")
    _, config = written(file, chosen)
    assert config.audit.path == file.parent / "audit.jsonl"
    assert config.history.key_file == file.parent / "key"
    assert config.models[MODEL].calibration == file.parent / "out" / "calibration" / MODEL
    assert config.models[MODEL].mode == "observe"
    assert file.read_text().count("purifiers") == 1


def test_a_file_that_has_gone(file: Path) -> None:
    config = configfile.load(file)
    model = config.models[MODEL]
    assert model.calibration is not None
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read any more"):
        write_policy(
            file.parent / "out", file, config, Whole(model.calibration, MODEL, model), model
        )


def test_the_palette_of_the_tests_is_as_calibrated() -> None:
    assert [part["name"] for part in MODELS[MODEL]["detectors"]][:2] == ["residual", "margin"]
