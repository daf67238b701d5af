"""How many images a threshold takes, and whether it holds on images it has not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from proxy import artifacts, configfile
from proxy.errors import ConfigError
from tests.defended import MODELS
from tuning.fit import Samples, benign_groups, images_needed


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


def test_variations_of_one_image_stay_on_one_side() -> None:
    numbers = torch.arange(60.0)
    x = numbers.view(60, 1, 1, 1).expand(60, 1, 8, 8) / 100
    own = {"half": x / 2, "lifted": x + 0.3, "others": x[:45]}
    sides = benign_groups(Samples(x, own), torch.Generator().manual_seed(0))
    for side, count in zip(sides, (20, 40), strict=True):
        clean = side["clean"].amax((1, 2, 3))
        assert len(clean) == count
        torch.testing.assert_close(side["half"].amax((1, 2, 3)), clean / 2)
        torch.testing.assert_close(side["lifted"].amax((1, 2, 3)), clean + 0.3)
        assert len(side["others"]) == 45 * count // 60
    assert not set(sides[0]["others"].amax((1, 2, 3)).tolist()) & set(
        sides[1]["others"].amax((1, 2, 3)).tolist()
    )
