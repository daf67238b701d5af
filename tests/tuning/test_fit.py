"""How many images a threshold takes, and whether it holds on images it has not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from proxy import artifacts, configfile
from proxy.errors import ConfigError
from tests.defended import MODELS
from tuning.fit import images_needed


@pytest.mark.triton
def test_thresholds_hold_on_fresh_benign_images(calibrations: Path) -> None:
    model = {**MODELS["digits_like"], "calibration": calibrations / "digits_like", "fpr": 0.05}
    config = configfile.Config.model_validate({"models": {"digits_like": model}})
    found = artifacts.load(
        calibrations / "digits_like",
        "digits_like",
        config.models["digits_like"],
        torch.device("cpu"),
    )
    for names in (["residual"], sorted(found.calibration.names)):
        assert found.calibration.rule([names], 0.05).threshold.fpr_upper < 0.15


@pytest.mark.parametrize("fpr", [0.5, 0.1, 0.05, 0.01])
def test_the_number_told_is_the_least_that_works(fpr: float) -> None:
    def held(images: int) -> int:
        rest = images - round(images / 3)
        return rest - round(rest / 3)

    needed = images_needed(fpr)
    assert held(needed) >= round(1 / fpr) - 1
    assert held(needed - 1) < round(1 / fpr) - 1 or needed == 1


@pytest.mark.parametrize("fpr", [-1.0, 0.0, 1.0, float("nan")])
def test_a_rate_is_between_0_and_1(fpr: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        images_needed(fpr)
