"""Candidates and the configurations they are."""

from __future__ import annotations

import pytest

from detectors.calibration import Calibration
from proxy.config import Model, Part
from proxy.errors import ConfigError
from tests.tuning.search import scene
from tuning.search.space import SHARES, Candidate, Space, candidate_of, space_of

SPACE = scene.space()
PURIFY = Candidate(("srm", "margin"), 0.005, (0.5, 0.001), "purify", "jpeg", "sequential")


def test_there_and_back() -> None:
    policy = SPACE.policy(PURIFY)
    assert [part.name for part in policy.detectors] == ["srm", "margin"]
    assert (policy.mode, policy.action, policy.dispatch) == ("enforce", "purify", "sequential")
    assert policy.purifiers == (Part(name="jpeg"),)
    assert policy.cascade is not None
    assert candidate_of(policy, SPACE) == PURIFY
    for candidate in SPACE.first():
        assert candidate_of(SPACE.policy(candidate), SPACE) == candidate


def test_observing_changes_nothing() -> None:
    candidate = Candidate(("srm",), 0.01, None, "observe", "none", "speculative")
    assert SPACE.policy(candidate).mode == "observe"


def test_what_has_no_effect_is_left_out() -> None:
    made = Candidate(("margin", "high_frequency"), 0.01, None, "observe", "jpeg", "sequential")
    found = SPACE.canonical(made)
    assert found.detectors == ("high_frequency", "margin")
    assert (found.chain, found.dispatch) == ("none", "speculative")
    alone = Candidate(("margin",), 0.01, (0.5, 0.001), "purify", "unknown", "sequential")
    assert SPACE.canonical(alone).stops is None
    assert SPACE.canonical(alone).action == "flag"


def test_parameters_are_kept_even_where_they_follow_from_the_purifiers() -> None:
    made = scene.model(
        detectors=[
            {"name": "purified_view"},
            {"name": "feature_squeezing", "params": {"views": [{"name": "median"}]}},
        ]
    )
    over = Space(made, scene.CHAINS, (0.01,))
    other = Candidate(("purified_view",), 0.01, None, "purify", "median", "speculative")
    (part,) = over.policy(other).detectors
    assert part.params == {"purifiers": [{"name": "jpeg", "params": {}}]}


def test_aggregates_stay_with_their_purifiers() -> None:
    made = scene.model(purifiers=[{"name": "noise"}], aggregate={"copies": 4})
    chains = {"noise": made.purifiers, "jpeg": (Part(name="jpeg"),)}
    over = Space(made, chains, (0.01,))

    def policy(action: str, chain: str) -> Model:
        made = Candidate(("srm",), 0.01, None, action, chain, "speculative")  # type: ignore[arg-type]
        return over.policy(made)

    assert policy("purify", "noise").aggregate is not None
    assert policy("purify", "jpeg").aggregate is None
    assert policy("flag", "none").aggregate is None


def test_an_old_policy_whose_parts_were_not_recorded() -> None:
    with pytest.raises(ConfigError, match="no scores were recorded of residual: there are high"):
        candidate_of(scene.model(detectors=[{"name": "residual"}]), SPACE)
    with pytest.raises(ConfigError, match=r"its purifiers .tv."):
        candidate_of(scene.model(purifiers=[{"name": "tv"}]), SPACE)


def test_only_rates_the_calibration_supports() -> None:
    calibration = scene.calibration(150)  # a hundred for thresholds
    assert isinstance(calibration, Calibration)
    over = space_of(scene.model(), scene.CHAINS, calibration, 0.02)
    assert over.fprs == pytest.approx([s * 0.02 for s in SHARES if s * 0.02 >= 0.0099])
    assert 0 < len(over.fprs) < len(SHARES)
    with pytest.raises(ConfigError, match=r"supports false-positive rates from 0\.0099"):
        space_of(scene.model(), scene.CHAINS, calibration, 0.001)
