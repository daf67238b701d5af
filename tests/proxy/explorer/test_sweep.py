"""A policy at many rates: the same as at each alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from proxy.config import Cascade
from proxy.errors import ConfigError
from proxy.explorer.sweep import RATES, Sweep, number
from proxy.parts import build_detectors
from proxy.rules import Rules
from tests.proxy.explorer.scores import NAMES, a_calibration, a_model, drawn

CASCADE = Cascade(clean=0.5, suspicious=0.02)


@pytest.mark.parametrize("cascade", [None, CASCADE])
def test_the_grid_equals_the_policy_at_each_rate(cascade: Cascade | None) -> None:
    calibration, model = a_calibration(), a_model(cascade=cascade)
    sweep = Sweep("m", model, calibration)
    assert len(sweep.fprs) == RATES
    assert sweep.fprs[0] == pytest.approx(1 / 201)  # 200 of 300 samples are for thresholds
    assert sweep.fprs[-1] == pytest.approx(0.2)
    for fpr, threshold in list(zip(sweep.fprs, sweep.thresholds, strict=True))[::7]:
        other = model.model_copy(update={"fpr": fpr})
        assert Rules("m", other, calibration, build_detectors(other)).whole.threshold == threshold
    values = [each.value for each in sweep.thresholds]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("cascade", [None, CASCADE])
def test_scores_are_fused_as_by_the_rule(cascade: Cascade | None) -> None:
    calibration, model = a_calibration(), a_model(cascade=cascade)
    scores = dict(zip(NAMES, drawn(200, 5).T, strict=True))
    rule = Rules("m", model, calibration, build_detectors(model)).whole
    expected = rule.score({n: torch.from_numpy(each.copy()) for n, each in scores.items()})
    np.testing.assert_array_equal(Sweep("m", model, calibration).fused(scores), expected.numpy())


def test_what_a_cascade_left_out_counts_only_where_it_is_needed() -> None:
    calibration = a_calibration()
    scores = drawn(200, 5)
    whole = Sweep("m", a_model(), calibration)
    stopping = Sweep("m", a_model(cascade=CASCADE), calibration)
    names = dict(zip(NAMES, scores.T, strict=True))
    early = stopping.fused({**names, "feature_squeezing": np.full(200, np.nan, np.float32)})
    settled = np.isfinite(early)
    assert 0 < settled.sum() < 200
    np.testing.assert_array_equal(early[settled], stopping.fused(names)[settled])
    assert np.isnan(whole.fused({**names, "margin": np.full(200, np.nan, np.float32)})).all()


def test_no_samples() -> None:
    empty = np.zeros(0, np.float32)
    assert Sweep("m", a_model(), a_calibration()).fused(dict.fromkeys(NAMES, empty)).shape == (0,)


def test_a_secret_draws_the_same_rules_for_the_sweep(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    model = a_model(secrecy={"key_file": key, "keep": 0.5})
    sweep = Sweep("m", model, a_calibration()).refreshed()
    plain = Sweep("m", a_model(), a_calibration())
    scores = dict(zip(NAMES, drawn(50, 5).T, strict=True))
    rule = Rules("m", model, a_calibration(), build_detectors(model)).whole
    expected = rule.score({n: torch.from_numpy(each.copy()) for n, each in scores.items()})
    np.testing.assert_array_equal(sweep.fused(scores), expected.numpy())
    assert not np.array_equal(sweep.fused(scores), plain.fused(scores))


def test_a_rate_that_the_calibration_does_not_support() -> None:
    with pytest.raises(ConfigError, match=r"models\.m: benign group .* needs 999"):
        Sweep("m", a_model(fpr=0.001), a_calibration())


def test_json_has_numbers_only() -> None:
    sweep = Sweep("m", a_model(cascade=CASCADE), a_calibration())
    policy = sweep.policy()
    assert policy["threshold"] == sweep.threshold.value
    assert policy["cascade"] == {"clean": 0.5, "suspicious": 0.02}
    assert policy["detectors"] == list(NAMES)
    assert {len(each) for each in sweep.grid().values()} == {RATES}
    assert [number(each) for each in (1.5, float("nan"), float("inf"))] == [1.5, None, None]
