"""From recorded scores to a calibration, and what is refused on the way."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.binomial import upper_bound
from detectors.calibration import Calibration
from proxy.errors import ConfigError
from tests.tuning.recordings import NAMES, attacked, calibration, draw, traffic
from tuning.live_calibration import GROUP, Outcome, Wanted, build
from tuning.live_scores import Scores

LEVELS = {"input": NAMES[:1], "output": NAMES}


@pytest.fixture(scope="module")
def previous() -> Calibration:
    return calibration()


def built(previous: Calibration, scores: Scores, wanted: Wanted) -> Outcome:
    return build(previous, traffic(scores), LEVELS, wanted)


def rate(made: Calibration, scores: Scores, fpr: float = 0.02) -> float:
    import torch

    rule = made.rule([NAMES], fpr)
    columns = torch.from_numpy(scores.T.astype(np.float32))
    fused = rule.score(dict(zip(NAMES, columns, strict=True)))
    return float((fused > rule.threshold.value).float().mean())


def test_live_traffic_becomes_one_more_group(previous: Calibration) -> None:
    made = built(previous, draw(2000, 20), Wanted(0.02))
    assert made.calibration.groups == ("clean", "noise", GROUP)
    assert made.trimmed == 0
    assert not made.found
    assert [level.name for level in made.levels] == ["input", "output"]
    for level in made.levels:
        assert level.live_upper == level.live_upper_untrimmed <= level.new.fpr_upper
    assert made.flagged[1] <= 0.025
    assert {shift.group for shift in made.shifts} == {"clean"}


def test_live_traffic_alone_gives_the_wanted_rate(previous: Calibration) -> None:
    made = built(previous, draw(2000, 20), Wanted(0.02, replace=True))
    assert made.calibration.groups == (GROUP,)
    fresh = draw(5000, 21)
    assert rate(previous, fresh) < 0.01 < rate(made.calibration, fresh) < 0.03
    (_, level) = made.levels
    assert level.new.worst_group == GROUP
    assert level.new.value < level.old.value
    assert level.live_upper == level.new.fpr_upper


def test_the_same_seed_gives_the_same(previous: Calibration) -> None:
    first, same, other = (
        built(previous, draw(2000, 20), Wanted(0.02, seed=seed)).calibration.held(NAMES)[GROUP]
        for seed in (1, 1, 2)
    )
    assert first.equal(same)
    assert not first.equal(other)


def test_what_stands_out_is_trimmed_and_counted_in_the_bound(previous: Calibration) -> None:
    scores = np.concatenate((draw(2000, 20), attacked(100, 22)))
    made = built(previous, scores, Wanted(0.02, replace=True))
    assert 40 <= made.trimmed <= 90
    assert made.steps[-1].dropped == made.trimmed
    (_, level) = made.levels
    held = len(made.calibration.held(NAMES)[GROUP])
    assert level.live_upper < 0.03
    # All that was trimmed is above the threshold: it counts in full.
    cut = round(made.trimmed * 2 / 3)
    count = 0.02 * (held + 1) + cut
    assert level.live_upper_untrimmed == pytest.approx(
        upper_bound(round(count), held + cut), rel=0.1
    )
    # Untrimmed, the attacks would be learned as benign.
    poisoned = built(previous, scores, Wanted(0.02, replace=True, accept_drift=True))
    assert poisoned.trimmed == 0
    assert poisoned.found
    caught = [rate(each.calibration, attacked(500, 23)) for each in (made, poisoned)]
    assert caught[0] > 0.9 > 0.75 > caught[1]


def test_another_kind_of_traffic_is_refused_unless_it_is_accepted(previous: Calibration) -> None:
    scores = draw(2000, 20, 2.0)
    with pytest.raises(ConfigError, match=r"attack or drift: \d+ of .* --accept-drift"):
        built(previous, scores, Wanted(0.02))
    made = built(previous, scores, Wanted(0.02, accept_drift=True))
    assert made.trimmed == 0
    assert (
        rate(previous, draw(3000, 9, 2.0))
        > 0.1
        > 0.035
        > rate(made.calibration, draw(3000, 9, 2.0))
    )


@pytest.mark.parametrize(
    ("count", "wanted", "message"),
    [
        (700, Wanted(0.02), "needs 750, 50 more"),
        (0, Wanted(0.02), "0 samples are left .* 750 more"),
        (2000, Wanted(0.0005), "needs 30000, 28000 more"),
        (2000, Wanted(1.5), "between 0 and 1"),
    ],
)
def test_too_little_is_refused(
    previous: Calibration, count: int, wanted: Wanted, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        built(previous, draw(count, 20), wanted)


def test_a_rate_the_previous_calibration_does_not_have() -> None:
    with pytest.raises(ConfigError, match="the least that its groups support is"):
        built(calibration(99), draw(2000, 20), Wanted(0.01))
