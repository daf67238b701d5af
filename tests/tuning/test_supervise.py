"""Learning from generated attacks, on scores whose law is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectors.calibration import Calibration
from proxy.errors import ConfigError
from tuning.supervise import learn, validate

NAMES = ("a", "b", "c")
LEVELS = {"input": NAMES[:1], "views": NAMES}


def scores(seed: int, **shifts: float) -> dict[str, Tensor]:
    """`a` and `b` rise and fall together on benign samples; attacks shift them as told."""
    generator = torch.Generator().manual_seed(seed)
    shared = 2 * torch.randn(900, generator=generator)
    own = torch.randn(3, 900, generator=generator)
    values = {"a": shared + 0.3 * own[0], "b": shared + 0.3 * own[1], "c": own[2]}
    return {name: value + shifts.get(name, 0.0) for name, value in values.items()}


CALIBRATION = Calibration.fit({"clean": scores(1), "noise": scores(2)})
ATTACKED = {"up": scores(3, c=1.5, a=1.0), "more": scores(4, c=2.0), "other": scores(5, a=6.0)}


def test_a_learned_score_is_added_for_levels_with_something_to_weigh() -> None:
    learned = learn(CALIBRATION, LEVELS, ATTACKED)
    assert [learner.names for learner in learned.learners] == [NAMES]
    assert CALIBRATION.learners == ()


def test_learning_helps_on_what_it_has_seen_and_keeps_the_rate() -> None:
    def detected(calibration: Calibration, sample: dict[str, Tensor]) -> float:
        rule = calibration.rule([NAMES], 0.05)
        return (rule.score(sample) > rule.threshold.value).float().mean().item()

    learned = learn(CALIBRATION, LEVELS, {"more": ATTACKED["more"]})
    assert detected(learned, scores(14, c=2.0)) > detected(CALIBRATION, scores(14, c=2.0)) + 0.03
    for seed in (21, 22):
        assert detected(learned, scores(seed)) < 0.09


def test_every_kind_is_judged_by_a_learner_that_has_not_seen_it() -> None:
    found = validate(CALIBRATION, LEVELS, ATTACKED, 0.05)
    assert [(v.family, v.level) for v in found] == [(family, "views") for family in ATTACKED]
    assert all(0 <= v.left_out <= 1 and 0 <= v.without <= 1 for v in found)
    seen = learn(CALIBRATION, LEVELS, ATTACKED).rule([NAMES], 0.05)
    by_family = {v.family: v for v in found}
    fused = seen.score(ATTACKED["more"]) > seen.threshold.value
    assert by_family["more"].left_out <= fused.float().mean().item() + 0.02


def test_attacks_without_scores_are_refused() -> None:
    broken = {name: torch.full((3,), float("nan")) for name in NAMES}
    with pytest.raises(ConfigError, match="kind up have no finite scores"):
        learn(CALIBRATION, LEVELS, {"up": broken})
