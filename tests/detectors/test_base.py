"""The checks the base class makes on every detector's behalf."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from detectors import Detector, DetectorError, Evidence, Need


class Wrong(Detector):
    """Returns whatever it is given."""

    name: ClassVar[str] = "wrong"
    needs: ClassVar[Need] = Need.INPUT

    def __init__(self, result: Tensor) -> None:
        self._result = result

    def _score(self, evidence: Evidence) -> Tensor:
        return self._result


@pytest.mark.parametrize(
    "result",
    [torch.zeros(3), torch.zeros(2, 1), torch.zeros(2, dtype=torch.float64), torch.tensor(0.0)],
    ids=["count", "shape", "type", "scalar"],
)
def test_a_detector_that_breaks_the_contract_is_caught(result: Tensor) -> None:
    with pytest.raises(DetectorError, match=r"wrong returned .* not \(2,\) float32"):
        Wrong(result).score(Evidence(torch.zeros(2, 1, 4, 4)))


def test_a_score_that_is_not_finite_is_passed_on() -> None:
    scores = Wrong(torch.tensor([float("nan"), 1.0])).score(Evidence(torch.zeros(2, 1, 4, 4)))
    assert scores.isnan().tolist() == [True, False]


def test_a_detector_without_state_takes_none() -> None:
    detector = Wrong(torch.zeros(1))
    detector.load_state({}, torch.device("cpu"))
    with pytest.raises(DetectorError, match="keeps no state"):
        detector.load_state({"knots": torch.zeros(1)}, torch.device("cpu"))


def test_preparing_changes_nothing_unless_a_detector_says_so() -> None:
    detector = Wrong(torch.zeros(1))
    detector.prepare(torch.zeros(3, 1, 4, 4))
    assert detector.state() == {}
