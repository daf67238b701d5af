from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from detectors.calibration import Calibration, CalibrationError

SETS = [["a"], ["a", "b"], ["a", "b", "c"]]
SCALES = {"clean": 1.0, "noise": 2.0, "blur": 0.5}


def scores(count: int, scale: float, seed: int) -> dict[str, Tensor]:
    """Correlated heavy-tailed scores of three detectors, as benign images give."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, generator=generator)
    own = torch.randn(3, count, generator=generator)
    return {
        "a": scale * (shared + own[0]),
        "b": scale * (shared - own[1]).abs(),
        "c": (shared + own[2]).exp() * scale,
    }


def groups(count: int = 600, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    return {g: scores(count, scale, seed + i) for i, (g, scale) in enumerate(SCALES.items())}


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration.fit(groups(), SETS)


@pytest.mark.parametrize("names", SETS, ids=len)
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_the_rate_holds_on_fresh_data(names: list[str], fpr: float) -> None:
    # Over calibration draws the rate of the worst group averages at most fpr; one draw varies.
    rates = []
    for seed in range(0, 400, 20):
        drawn = Calibration.fit(groups(450, seed), SETS)
        threshold = drawn.threshold(names, fpr)
        fresh = scores(2000, SCALES[threshold.worst_group], seed + 13)
        fused = drawn.fuse({name: fresh[name] for name in names})
        rates.append((fused > threshold.value).float().mean().item())
    spread = math.sqrt(fpr * (1 - fpr) * (1 / 300 + 1 / 2000) / len(rates))
    assert sum(rates) / len(rates) <= fpr + 3 * spread


def test_the_widest_group_sets_the_threshold(calibration: Calibration) -> None:
    threshold = calibration.threshold(["a", "b", "c"], 0.05)
    assert threshold.worst_group == "noise"
    assert threshold.samples == 400
    clean = scores(4000, SCALES["clean"], 77)
    assert (calibration.fuse(clean) > threshold.value).float().mean() < 0.05


def test_threshold_and_bound_by_hand() -> None:
    # One detector and group, so fused scores keep the order of the scores: 600 given, 400 held.
    one = {"clean": {"a": scores(600, 1.0, 3)["a"]}}
    calibration = Calibration.fit(one, [["a"]])
    threshold = calibration.threshold(["a"], 0.05)
    fused = calibration.tensors()["set0.fused.clean"]
    # ceil(401 * 0.95) = 381st smallest; 19 of 400 lie above it.
    assert threshold.value == fused[380]
    assert int((fused > threshold.value).sum()) == 19
    assert threshold.fpr_upper == pytest.approx(stats.beta.ppf(0.95, 20, 381), abs=1e-6)


@given(st.floats(0.005, 0.5))
def test_thresholds_fall_as_the_rate_grows(fpr: float) -> None:
    calibration = Calibration.fit(groups(), SETS[:1])
    strict, loose = (calibration.threshold(["a"], rate) for rate in (fpr, min(0.9, 1.5 * fpr)))
    assert strict.value >= loose.value
    assert strict.fpr_upper >= fpr * 0.5


def test_a_rate_the_data_cannot_support_says_how_much_it_takes() -> None:
    calibration = Calibration.fit(groups(60), SETS)
    with pytest.raises(CalibrationError, match=r"40 samples.*0\.01 needs 99, that is 149 "):
        calibration.threshold(["a"], 0.01)
    assert calibration.threshold(["a"], 0.025).samples == 40
    exact = Calibration.fit(groups(149), SETS)  # 99 are held back: just enough
    assert exact.threshold(["a"], 0.01).value > 0


def test_p_values_by_hand() -> None:
    calibration = Calibration.fit(groups(), SETS)
    benign = calibration.tensors()["mix.a"]
    total = len(benign)
    assert total == 1200
    asked = torch.stack((benign[0] - 1, benign[-1], benign[-1] + 1, benign[total - 10]))
    p = calibration.p_values({"a": asked})["a"]
    expected = torch.tensor([total + 1, 2, 1, 11]) / (total + 1)
    torch.testing.assert_close(p, expected)


@given(st.integers(0, 20), st.integers(0, 2**31))
def test_p_values_and_fused_scores_are_in_range(batch: int, seed: int) -> None:
    calibration = Calibration.fit(groups(90), SETS)
    drawn = scores(batch, 3.0, seed)
    p_values = calibration.p_values(drawn)
    assert list(p_values) == list(drawn)
    for p in p_values.values():
        assert p.shape == (batch,)
        assert bool(((p > 0) & (p <= 1)).all())
    fused = calibration.fuse(drawn)
    assert fused.shape == (batch,)
    assert bool((fused >= 0).all())


def test_p_values_of_benign_data_are_uniform(calibration: Calibration) -> None:
    fresh = torch.cat([scores(3000, scale, 50 + i)["c"] for i, scale in enumerate(SCALES.values())])
    p = calibration.p_values({"c": fresh})["c"]
    for level in (0.05, 0.25, 0.5):
        assert (p <= level).float().mean().item() == pytest.approx(level, abs=0.03)


def test_order_of_detectors_and_batch_do_not_matter(calibration: Calibration) -> None:
    drawn = scores(7, 2.0, 5)
    backwards = dict(reversed(drawn.items()))
    torch.testing.assert_close(calibration.fuse(drawn), calibration.fuse(backwards))
    alone = [calibration.fuse({name: s[i : i + 1] for name, s in drawn.items()}) for i in range(7)]
    torch.testing.assert_close(calibration.fuse(drawn), torch.cat(alone))
    again = calibration.p_values(backwards)
    assert all(torch.equal(p, again[name]) for name, p in calibration.p_values(drawn).items())


def test_fused_score_never_falls_when_a_score_rises(calibration: Calibration) -> None:
    drawn = scores(50, 1.0, 6)
    raised = {**drawn, "b": drawn["b"] + 2.0}
    assert bool((calibration.fuse(raised) >= calibration.fuse(drawn)).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(calibration: Calibration, bad: float) -> None:
    drawn = scores(3, 1.0, 8)
    drawn["b"][1] = bad
    fused, p = calibration.fuse(drawn), calibration.p_values(drawn)["b"]
    assert fused.isnan().tolist() == [False, True, False]
    assert p.isnan().tolist() == [False, True, False]


def test_round_trip_through_tensors_and_json(calibration: Calibration) -> None:
    tensors = {key: tensor.clone() for key, tensor in calibration.tensors().items()}
    meta = json.loads(json.dumps(calibration.meta()))
    restored = Calibration.from_tensors(tensors, meta)
    drawn = scores(9, 2.0, 9)
    assert torch.equal(restored.fuse(drawn), calibration.fuse(drawn))
    assert torch.equal(restored.p_values(drawn)["c"], calibration.p_values(drawn)["c"])
    for names in SETS:
        assert restored.threshold(names, 0.02) == calibration.threshold(names, 0.02)
    assert (restored.sets, restored.groups) == (calibration.sets, calibration.groups)


def test_the_same_data_gives_the_same_calibration(calibration: Calibration) -> None:
    again = Calibration.fit(groups(), SETS).tensors()
    assert all(torch.equal(tensor, again[key]) for key, tensor in calibration.tensors().items())


def test_incomplete_tensors_are_refused(calibration: Calibration) -> None:
    tensors = calibration.tensors()
    del tensors["set1.knots"]
    with pytest.raises(CalibrationError, match="incomplete"):
        Calibration.from_tensors(tensors, calibration.meta())
    with pytest.raises(CalibrationError, match="incomplete"):
        Calibration.from_tensors(calibration.tensors(), {})


def test_an_uncalibrated_set_is_refused(calibration: Calibration) -> None:
    drawn = scores(2, 1.0, 1)
    with pytest.raises(CalibrationError, match=r"no calibration for \['b', 'c'\]; there is: a;"):
        calibration.fuse({"b": drawn["b"], "c": drawn["c"]})
    with pytest.raises(CalibrationError, match="no calibration"):
        calibration.threshold(["b"], 0.1)
    with pytest.raises(CalibrationError, match="not calibrated"):
        calibration.p_values({"z": drawn["b"]})


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 2.0])
def test_a_rate_outside_0_1_is_refused(calibration: Calibration, fpr: float) -> None:
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        calibration.threshold(["a"], fpr)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g.clear(), "at least one benign group"),
        (lambda g: g["clean"].pop("b"), r"'clean' has no scores of \['b'\]"),
        (lambda g: g["blur"].update(a=torch.zeros(31)), "equally many"),
        (lambda g: g["noise"]["c"].fill_(math.nan), "noise.*c has scores that are not finite"),
        (lambda g: g.update(tiny=scores(20, 1.0, 1)), "needs 30 or more"),
    ],
)
def test_unusable_data_is_refused(change: object, words: str) -> None:
    data = groups(60)
    change(data)  # type: ignore[operator]
    with pytest.raises(CalibrationError, match=words):
        Calibration.fit(data, SETS)
