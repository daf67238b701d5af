"""Quick fusion gives what the calibration's own rules give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.rule import CalibrationError, Cascade
from proxy.cascade import levels_of
from tests.tuning.search import scene
from tuning.search.fusing import Fuser, held
from tuning.search.space import Candidate
from tuning.supervise import learn

CALIBRATION = scene.calibration()
SPACE = scene.space()


def fuser(scores: torch.Tensor, calibration: object = CALIBRATION) -> Fuser:
    return Fuser(calibration, scene.PALETTE, {"some": scores})  # type: ignore[arg-type]


def some(count: int = 300) -> torch.Tensor:
    return 2 * torch.randn(count, 6, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("stops", [None, (0.5, 0.001), (1.0, 1e-9)])
@pytest.mark.parametrize(
    "names", [("margin",), ("srm", "energy"), ("high_frequency", "margin", "jpeg_view"), ()]
)
def test_as_the_rule_of_the_calibration(
    names: tuple[str, ...], stops: tuple[float, float] | None
) -> None:
    names = names or scene.PALETTE
    candidate = Candidate(names, 0.01, stops, "flag", "none", "speculative")
    scores = some()
    levels, cascades = levels_of(SPACE.built(names), stops and Cascade(*stops))
    rule = CALIBRATION.rule(levels, 0.01, cascade=cascades or None)
    wanted = rule.score({name: scores[:, scene.PALETTE.index(name)] for name in names})
    judged = fuser(scores).judge(SPACE, candidate)
    np.testing.assert_allclose(judged.fused["some"], wanted.numpy(), rtol=1e-4, atol=1e-4)
    assert judged.threshold.value == pytest.approx(rule.threshold.value, rel=1e-5)
    assert judged.threshold.worst_group == rule.threshold.worst_group
    assert judged.levels == rule.levels


def test_a_cascade_tells_where_each_sample_is_settled() -> None:
    scores = torch.zeros(2, 6)
    scores[1] = 1.2  # neither ordinary nor far out
    judged = fuser(scores).judge(
        SPACE, Candidate(scene.PALETTE, 0.01, (0.5, 0.001), "flag", "none", "speculative")
    )
    first, second = judged.reached["some"].tolist()
    assert first < second == len(judged.levels) - 1


def test_the_calibrations_own_samples_are_judged_too() -> None:
    candidate = Candidate(("margin",), 0.05, None, "flag", "none", "speculative")
    judged = fuser(some()).judge(SPACE, candidate)
    worst = judged.threshold.worst_group
    flagged = judged.flagged(held(worst))
    assert flagged.mean() == pytest.approx(0.05, abs=2 / len(flagged))


def test_a_learned_score_counts_where_all_its_detectors_look() -> None:
    generator = torch.Generator().manual_seed(5)
    attacked = {
        "a": {n: torch.randn(200, generator=generator) + 2 for n in scene.PALETTE},
        "b": {n: torch.randn(200, generator=generator) + 1 for n in scene.PALETTE},
    }
    learned = learn(CALIBRATION, {"all": scene.PALETTE}, attacked)
    scores = some()
    columns = dict(zip(scene.PALETTE, scores.T, strict=True))
    wanted = learned.rule([scene.PALETTE], 0.01).score(columns)
    whole = Candidate(scene.PALETTE, 0.01, None, "flag", "none", "speculative")
    judged = fuser(scores, learned).judge(SPACE, whole)
    np.testing.assert_allclose(judged.fused["some"], wanted.numpy(), rtol=1e-4, atol=1e-4)
    assert not np.allclose(judged.fused["some"], fuser(scores).judge(SPACE, whole).fused["some"])


def test_a_rate_that_takes_more_samples_is_refused() -> None:
    candidate = Candidate(("margin",), 1e-6, None, "flag", "none", "speculative")
    with pytest.raises(CalibrationError, match="the least rate these support"):
        fuser(some()).judge(SPACE, candidate)
