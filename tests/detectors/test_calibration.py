from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from detectors.calibration import Calibration
from detectors.fusion import Learner
from detectors.rule import CalibrationError, Cascade, Rule
from detectors.secrecy import Secrecy

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
    return Calibration.fit(groups())


def pick(drawn: dict[str, Tensor], rule: Rule) -> dict[str, Tensor]:
    return {name: drawn[name] for name in rule.names}


@pytest.mark.parametrize("names", SETS, ids=len)
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_the_rate_holds_on_fresh_data(names: list[str], fpr: float) -> None:
    # Over calibration draws the rate of the worst group averages at most fpr; one draw varies.
    rates = []
    for seed in range(0, 400, 20):
        rule = Calibration.fit(groups(450, seed)).rule([names], fpr)
        fresh = scores(2000, SCALES[rule.threshold.worst_group], seed + 13)
        fused = rule.score(pick(fresh, rule))
        rates.append((fused > rule.threshold.value).float().mean().item())
    spread = math.sqrt(fpr * (1 - fpr) * (1 / 300 + 1 / 2000) / len(rates))
    assert sum(rates) / len(rates) <= fpr + 3 * spread


def test_every_group_has_a_threshold_and_the_worst_counts(calibration: Calibration) -> None:
    threshold = calibration.rule(SETS[-1:], 0.05).threshold
    assert threshold.worst_group in SCALES
    assert threshold.samples == 400


def test_threshold_and_bound_by_hand() -> None:
    # One detector and group, so fused scores keep the order of the scores: 600 given, 400 held.
    one = {"clean": {"a": scores(600, 1.0, 3)["a"]}}
    calibration = Calibration.fit(one)
    rule = calibration.rule([["a"]], 0.05)
    fused = rule.score({"a": calibration.tensors()["held.clean"][:, 0].sort().values})
    # ceil(401 * 0.95) = 381st smallest; 19 of 400 lie above it.
    assert rule.threshold.value == fused[380]
    assert int((fused > rule.threshold.value).sum()) == 19
    assert rule.threshold.fpr_upper == pytest.approx(stats.beta.ppf(0.95, 20, 381), abs=1e-6)


@given(st.floats(0.005, 0.5))
def test_thresholds_fall_as_the_rate_grows(fpr: float) -> None:
    calibration = Calibration.fit(groups())
    strict, loose = (
        calibration.rule([["a"]], rate).threshold for rate in (fpr, min(0.9, 1.5 * fpr))
    )
    assert strict.value >= loose.value
    assert strict.fpr_upper >= fpr * 0.5


def test_a_rate_the_data_cannot_support_says_how_much_it_takes() -> None:
    calibration = Calibration.fit(groups(60))
    with pytest.raises(CalibrationError, match=r"40 samples.*0\.01 needs 99, that is 149 "):
        calibration.rule([["a"]], 0.01)
    assert calibration.rule([["a"]], 0.025).threshold.samples == 40
    exact = Calibration.fit(groups(149))  # 99 are held back: just enough
    assert exact.rule([["a"]], 0.01).threshold.value > 0


def test_p_values_by_hand() -> None:
    calibration = Calibration.fit(groups())
    tensors = calibration.tensors()
    benign = torch.cat([tensors[f"held.{group}"][:, 0] for group in SCALES]).sort().values
    total = len(benign)
    assert total == 1200
    asked = torch.stack((benign[0] - 1, benign[-1], benign[-1] + 1, benign[total - 10]))
    p = calibration.p_values({"a": asked})["a"]
    expected = torch.tensor([total + 1, 2, 1, 11]) / (total + 1)
    torch.testing.assert_close(p, expected)


@given(st.integers(0, 20), st.integers(0, 2**31))
def test_p_values_and_fused_scores_are_in_range(batch: int, seed: int) -> None:
    calibration = Calibration.fit(groups(90))
    drawn = scores(batch, 3.0, seed)
    p_values = calibration.p_values(drawn)
    assert list(p_values) == list(drawn)
    for p in p_values.values():
        assert p.shape == (batch,)
        assert bool(((p > 0) & (p <= 1)).all())
    fused = calibration.rule(SETS[-1:], 0.1).score(drawn)
    assert fused.shape == (batch,)
    assert bool((fused >= 0).all())


def test_p_values_of_benign_data_are_uniform(calibration: Calibration) -> None:
    fresh = torch.cat([scores(3000, scale, 50 + i)["c"] for i, scale in enumerate(SCALES.values())])
    p = calibration.p_values({"c": fresh})["c"]
    for level in (0.05, 0.25, 0.5):
        assert (p <= level).float().mean().item() == pytest.approx(level, abs=0.03)


def test_order_of_detectors_and_batch_do_not_matter(calibration: Calibration) -> None:
    drawn = scores(7, 2.0, 5)
    rule = calibration.rule(SETS[-1:], 0.1)
    backwards = calibration.rule([["c", "a", "b"]], 0.1)
    torch.testing.assert_close(rule.score(drawn), backwards.score(drawn))
    alone = [rule.score({name: s[i : i + 1] for name, s in drawn.items()}) for i in range(7)]
    torch.testing.assert_close(rule.score(drawn), torch.cat(alone))


def test_fused_score_never_falls_when_a_score_rises(calibration: Calibration) -> None:
    drawn = scores(50, 1.0, 6)
    raised = {**drawn, "b": drawn["b"] + 2.0}
    rule = calibration.rule(SETS[-1:], 0.1)
    assert bool((rule.score(raised) >= rule.score(drawn)).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("learned", [False, True])
def test_what_is_not_finite_stays_so(calibration: Calibration, bad: float, learned: bool) -> None:
    drawn = scores(3, 1.0, 8)
    drawn["b"][1] = bad
    learner = Learner(("a", "b", "c"), torch.ones(6))
    subject = calibration.with_learners([learner] if learned else [])
    fused, p = subject.rule(SETS[-1:], 0.1).score(drawn), calibration.p_values(drawn)["b"]
    assert fused.isnan().tolist() == [False, True, False]
    assert p.isnan().tolist() == [False, True, False]


def test_round_trip_through_tensors_and_json(calibration: Calibration) -> None:
    subject = calibration.with_learners([Learner(("a", "b"), torch.arange(4.0))])
    tensors = {key: tensor.clone() for key, tensor in subject.tensors().items()}
    restored = Calibration.from_tensors(tensors, json.loads(json.dumps(subject.meta())))
    drawn = scores(9, 2.0, 9)
    assert torch.equal(restored.p_values(drawn)["c"], subject.p_values(drawn)["c"])
    for names in SETS:
        there, here = restored.rule([names], 0.02), subject.rule([names], 0.02)
        assert there.threshold == here.threshold
        assert torch.equal(there.score(pick(drawn, there)), here.score(pick(drawn, here)))
    assert (restored.names, restored.groups) == (subject.names, subject.groups)


def test_incomplete_tensors_are_refused(calibration: Calibration) -> None:
    tensors = calibration.tensors()
    del tensors["held.blur"]
    with pytest.raises(CalibrationError, match="incomplete"):
        Calibration.from_tensors(tensors, calibration.meta())
    with pytest.raises(CalibrationError, match="incomplete"):
        Calibration.from_tensors(calibration.tensors(), {})
    narrow = {**calibration.tensors(), "held.blur": torch.zeros(9, 2)}
    with pytest.raises(CalibrationError, match=r"incomplete|columns"):
        Calibration.from_tensors(narrow, calibration.meta())


def test_a_detector_nobody_calibrated_is_refused(calibration: Calibration) -> None:
    with pytest.raises(CalibrationError, match=r"not calibrated: \['z'\]; there are \['a', "):
        calibration.rule([["a", "z"]], 0.1)
    with pytest.raises(CalibrationError, match="not calibrated"):
        calibration.p_values({"z": torch.zeros(2)})


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 2.0])
def test_a_rate_outside_0_1_is_refused(calibration: Calibration, fpr: float) -> None:
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        calibration.rule([["a"]], fpr)


@pytest.mark.parametrize("secret", [None, Secrecy(b"key", 3)])
def test_the_rate_of_a_cascade_holds_on_fresh_data(secret: Secrecy | None) -> None:
    rates, stopped = [], []
    for seed in range(0, 400, 20):
        calibration = Calibration.fit(groups(450, seed))
        rule = calibration.rule(SETS, 0.05, cascade=Cascade(clean=0.5), secrecy=secret)
        fresh = scores(2000, SCALES[rule.threshold.worst_group], seed + 13)
        rates.append((rule.score(fresh) > rule.threshold.value).float().mean().item())
        first = rule.settle({"a": fresh["a"]})
        assert first is not None
        stopped.append(first.isfinite().float().mean().item())
    spread = math.sqrt(0.05 * 0.95 * (1 / 300 + 1 / 2000) / len(rates))
    assert sum(rates) / len(rates) <= 0.05 + 3 * spread
    assert sum(stopped) / len(stopped) > 0.3


def test_what_a_cascade_settles_early_is_its_last_word(calibration: Calibration) -> None:
    rule = calibration.rule(SETS, 0.05, cascade=Cascade(clean=0.4, suspicious=0.001))
    drawn = scores(500, 2.0, 4)
    final = rule.score(drawn)
    early = rule.settle({"a": drawn["a"]})
    later = rule.settle({"a": drawn["a"], "b": drawn["b"]})
    assert early is not None
    assert later is not None
    assert torch.equal(final[early.isfinite()], early[early.isfinite()])
    assert torch.equal(later[early.isfinite()], early[early.isfinite()])
    assert torch.equal(final[later.isfinite()], later[later.isfinite()])
    assert later.isfinite().sum() > early.isfinite().sum()
    assert rule.settle({name: drawn[name] for name in "abc"}) is None


def test_without_a_cascade_nothing_is_settled_early(calibration: Calibration) -> None:
    drawn = scores(3, 1.0, 4)
    assert calibration.rule(SETS, 0.05).settle({"a": drawn["a"]}) is None


def test_a_learned_score_finds_what_the_length_does_not(calibration: Calibration) -> None:
    # Benign `a` and `b` share a part; attacks raise one while the other stays ordinary.
    learner = Learner(("a", "b", "c"), torch.tensor([1.0, -1.0, 0, 0, 0, 0]))
    attacked = scores(400, 1.0, 12)
    attacked["a"] = attacked["a"] + 2.5
    caught = []
    for subject in (calibration, calibration.with_learners([learner])):
        rule = subject.rule(SETS[-1:], 0.05)
        caught.append((rule.score(attacked) > rule.threshold.value).float().mean().item())
    assert caught[1] > caught[0]


@pytest.mark.parametrize(("clean", "suspicious"), [(0.1, 0.2), (0.5, 0.0), (1.1, 0.1)])
def test_a_cascade_that_stops_nowhere_or_everywhere_is_refused(
    clean: float, suspicious: float
) -> None:
    with pytest.raises(CalibrationError, match="0 < suspicious < clean <= 1"):
        Cascade(clean, suspicious)


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
        Calibration.fit(data)


def test_a_group_more_raises_thresholds_and_keeps_the_others(calibration: Calibration) -> None:
    live = scores(900, 4.0, 77)
    more = calibration.with_group("live", live)
    assert more.groups == (*calibration.groups, "live")
    names = list(calibration.names)
    for group in calibration.groups:
        assert torch.equal(more.held(names)[group], calibration.held(names)[group])
    both = torch.cat((more.fitting(names)["live"], more.held(names)["live"]))
    assert len(more.held(names)["live"]) == 600
    assert torch.equal(both.sort(dim=0).values, torch.stack([live[n] for n in names], 1).sort(0)[0])
    rule, old = (each.rule([names], 0.05) for each in (more, calibration))
    assert rule.threshold.worst_group == "live"
    fresh = scores(2000, 4.0, 5)
    flagged = [(r.score(fresh) > r.threshold.value).float().mean().item() for r in (rule, old)]
    assert flagged[0] < 0.08 < flagged[1]
    again = more.with_group("live", scores(100, 1.0, 3))
    assert again.groups == more.groups
    assert len(again.held(names)["live"]) == 67


@pytest.mark.parametrize("ruin", ["few", "missing", "nan", "ragged"])
def test_a_group_that_cannot_be_used_is_refused(calibration: Calibration, ruin: str) -> None:
    live = scores(20 if ruin == "few" else 100, 1.0, 7)
    if ruin == "missing":
        del live["b"]
    elif ruin == "nan":
        live["b"][3] = math.nan
    elif ruin == "ragged":
        live["b"] = live["b"][:50]
    with pytest.raises(CalibrationError, match="group 'live'"):
        calibration.with_group("live", live)


@given(
    st.lists(st.floats(0.013, 0.9), max_size=4),
    st.sampled_from([None, Cascade(), Cascade(0.3, 0.01)]),
    st.sampled_from([None, b"secret"]),
)
def test_rules_at_many_rates_are_those_at_each(
    fprs: list[float], cascade: Cascade | None, key: bytes | None
) -> None:
    calibration = Calibration.fit(groups(120))
    secrecy = None if key is None else Secrecy(key * 4, 3, 2)
    drawn = scores(50, 1.5, 77)
    found = calibration.rules(SETS, fprs, cascade=cascade, secrecy=secrecy)
    for fpr, rule in zip(fprs, found, strict=True):
        alone = calibration.rule(SETS, fpr, cascade=cascade, secrecy=secrecy)
        assert rule.threshold == alone.threshold
        assert rule.levels == alone.levels
        assert torch.equal(rule.score(pick(drawn, rule)), alone.score(pick(drawn, rule)))


def test_the_least_rate_is_the_least_there_is_a_rule_for(calibration: Calibration) -> None:
    least = calibration.least_fpr
    assert least == 1 / 401
    assert calibration.rule(SETS, least).threshold.fpr == least
    with pytest.raises(CalibrationError, match=r"the least rate these support is 0\.00249"):
        calibration.rules(SETS, [0.1, least * 0.99])
