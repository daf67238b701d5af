from __future__ import annotations

import pytest

from detectors.rule import FIT_SHARE
from proxy.errors import ConfigError
from tuning.screening import BEYOND, Step
from tuning.sufficiency import TooFew, check_enough, samples_needed


@pytest.mark.parametrize("fpr", [0.3, 0.05, 0.01, 0.003, 0.001])
def test_the_thresholds_part_holds_ten_over_the_rate(fpr: float) -> None:
    def held(count: int) -> int:
        return count - round(count * FIT_SHARE)

    needed = samples_needed(fpr)
    assert held(needed) >= 10 / fpr - 1e-6 > held(needed - 1) - 1
    assert held(needed - 1) < 10 / fpr


@pytest.mark.parametrize("fpr", [0, 1, -0.1, float("nan")])
def test_what_is_no_rate(fpr: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        samples_needed(fpr)


def test_too_few_says_how_many_more() -> None:
    check_enough(1500, [], fpr=0.01, share=0.1)
    with pytest.raises(TooFew, match=r"needs 1500, 700 more$") as caught:
        check_enough(800, [Step(f"{BEYOND} of 10%", 600, 800)], fpr=0.01, share=0.1)
    assert (caught.value.left, caught.value.needed) == (800, 1500)
    with pytest.raises(TooFew, match=r"700 are left out .* --principal-share"):
        check_enough(800, [Step(f"{BEYOND} of 10%", 700, 800)], fpr=0.01, share=0.1)
