"""Verdicts at every level of evidence, the cascade, and draws by a secret."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detectors import build
from detectors.calibration import Calibration
from proxy.config import Model
from proxy.errors import ConfigError
from proxy.flow import Verdict
from proxy.rules import NoRule, Rules, evidence_levels

NAMES = ("residual", "margin", "feature_squeezing")
PARTS = tuple(build(name) for name in NAMES)


def scores(count: int, seed: int, shift: float = 0.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, generator=generator) + shift for name in NAMES}


CALIBRATION = Calibration.fit({"clean": scores(600, 1), "noise": scores(600, 2)})


def rules(now: float = 0.0, **fields: Any) -> Rules:
    cfg = Model.model_validate(
        {"calibration": "c", "detectors": [{"name": name} for name in NAMES], "fpr": 0.02, **fields}
    )
    return Rules("cnn", cfg, CALIBRATION, PARTS, now=lambda: now)


def test_every_level_has_its_threshold() -> None:
    levels = evidence_levels(PARTS)
    assert levels == {"input": NAMES[:1], "output": NAMES[:2], "views": NAMES}
    thresholds = rules().thresholds
    assert list(thresholds) == list(levels)
    assert all(0 < each.fpr_upper < 0.1 for each in thresholds.values())


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_verdict_from_the_scores_of_each_level(level: int) -> None:
    usual = {name: torch.tensor([0.0, 9.0, math.nan]) for name in NAMES[:level]}
    samples = rules().judge(usual)
    assert [s.verdict for s in samples] == [Verdict.PASS, Verdict.SUSPICIOUS, Verdict.FAILED]
    assert set(samples[0].p_values) == set(usual)
    assert samples[2].reason == "non_finite"


def test_a_verdict_tells_of_the_detectors_that_looked() -> None:
    subject = rules(cascade={"clean": 0.5, "suspicious": 0.001})
    # An ordinary input is looked at no further than the model's answer, nor is a plain attack.
    found = subject.judge(
        {
            "residual": torch.tensor([-1.0, 30.0, 1.7, -1.0]),
            "margin": torch.tensor([-1.0, math.nan, 1.7, 30.0]),
            "feature_squeezing": torch.tensor([math.nan, math.nan, 0.0, math.nan]),
        }
    )
    looked = [tuple(sample.p_values) for sample in found]
    assert looked == [NAMES[:2], NAMES[:1], NAMES, NAMES[:2]]
    assert [s.verdict for s in found] == [
        *(Verdict.PASS, Verdict.SUSPICIOUS, found[2].verdict, Verdict.SUSPICIOUS)
    ]
    assert [s.reason for s in found][1::2] == ["residual", "margin"]
    assert found[2].verdict is not Verdict.FAILED


def test_a_sample_in_doubt_without_a_score_has_no_verdict() -> None:
    subject = rules(cascade={"clean": 0.5, "suspicious": 0.001})
    scores = {name: torch.tensor([1.7]) for name in NAMES}
    for name in NAMES:
        (sample,) = subject.judge({**scores, name: torch.tensor([math.nan])})
        assert (sample.verdict, sample.reason) == (Verdict.FAILED, "non_finite")


@pytest.mark.parametrize("cascade", [None, {"clean": 0.5}])
def test_the_rate_of_verdicts_is_the_calibrated_one(cascade: dict[str, float] | None) -> None:
    subject = rules(cascade=cascade, fpr=0.02)
    rates = []
    for group in CALIBRATION.groups:
        matrix = CALIBRATION.tensors()[f"held.{group}"]
        scores = {name: matrix[:, CALIBRATION.names.index(name)] for name in NAMES}
        found = subject.judge(scores)
        rates.append(sum(s.verdict is Verdict.SUSPICIOUS for s in found) / len(found))
    # Conformal: the 8th largest of 400 is the threshold, so that 8 of 401 exceed it on average.
    assert max(rates) == pytest.approx(7 / 400)


# -- other sets of detectors -----------------------------------------------------------------------


def test_a_rule_for_what_is_left_of_the_detectors() -> None:
    subject = rules(cascade={"clean": 0.5})
    left = ("residual", "feature_squeezing")
    scores = {name: torch.tensor([-1.0, 2.0, 30.0]) for name in left}
    with pytest.raises(NoRule, match=r"\['feature_squeezing', 'residual'\]"):
        subject.judge(scores)
    assert subject.prepare(left)
    assert subject.prepare(left)
    verdicts = [sample.verdict for sample in subject.judge(scores)]
    assert (verdicts[0], verdicts[2]) == (Verdict.PASS, Verdict.SUSPICIOUS)
    assert set(subject.thresholds) == {"input", "output", "views"}
    assert not subject.prepare(())


def test_so_many_rules_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.rules.MOST_PREPARED", 1)
    subject = rules()
    assert subject.prepare(NAMES[1:])
    assert subject.prepare(NAMES[2:])
    assert [subject.has(names) for names in (NAMES[1:], NAMES[2:], NAMES)] == [False, True, True]


def test_prepared_rules_are_drawn_anew_as_well(tmp_path: Path) -> None:
    clock = [0.0]
    cfg = Model.model_validate(
        {
            "calibration": "c",
            "detectors": [{"name": name} for name in NAMES],
            "secrecy": secret(tmp_path),
        }
    )
    subject = Rules("cnn", cfg, CALIBRATION, PARTS, now=lambda: clock[0])
    assert subject.prepare(NAMES[1:])
    drawn = scores(1, 3)
    seen = set()
    for epoch in range(6):
        clock[0] = 7200.0 * epoch
        subject.rotate()
        seen.add(subject.judge({name: drawn[name] for name in NAMES[1:]})[0].score)
    assert len(seen) > 1


def secret(tmp_path: Path, text: str = "0123456789abcdef") -> dict[str, Any]:
    (tmp_path / "key").write_text(text + "\n")
    return {"key_file": tmp_path / "key", "keep": 0.5, "rotate_hours": 2}


def test_a_secret_is_drawn_anew_in_every_epoch(tmp_path: Path) -> None:
    drawn = scores(50, 9)

    def fused(hours: float, text: str = "0123456789abcdef") -> list[float]:
        subject = rules(3600 * hours, secrecy=secret(tmp_path, text))
        return [sample.score for sample in subject.judge(drawn)]

    assert fused(0.0) == fused(1.9)
    epochs = [fused(2.0 * epoch) for epoch in range(4)]
    assert len({tuple(each) for each in epochs}) > 1
    assert fused(0.0) != fused(0.0, "another key of 16")


def test_a_running_proxy_goes_over_to_the_next_epoch(tmp_path: Path) -> None:
    clock = [0.0]
    cfg = Model.model_validate(
        {
            "calibration": "c",
            "detectors": [{"name": name} for name in NAMES],
            "secrecy": secret(tmp_path),
        }
    )
    subject = Rules("cnn", cfg, CALIBRATION, PARTS, now=lambda: clock[0])
    seen, thresholds = set(), set()
    for epoch in range(6):
        before = subject.judge(scores(1, 3))[0].score
        clock[0] = 7200.0 * epoch
        # Judging goes on by the old rules: to draw new ones takes longer than a request may wait.
        assert subject.judge(scores(1, 3))[0].score == before
        assert subject.rotate() == (epoch > 0)
        assert not subject.rotate()
        seen.add(subject.judge(scores(1, 3))[0].score)
        thresholds.add(subject.thresholds["views"].value)
    assert len(seen) > 1
    assert len(thresholds) > 1


def test_an_unusable_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 5 bytes; at least 16"):
        rules(secrecy=secret(tmp_path, "short"))
    with pytest.raises(ConfigError, match=r"key_file: .*No such file"):
        rules(secrecy={"key_file": tmp_path / "missing"})


def test_a_rate_the_calibration_cannot_support_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"models\.cnn: benign group .* needs 9999"):
        rules(fpr=0.0001)


@pytest.mark.parametrize("error", [0.0, 1e-6])
@pytest.mark.parametrize("epoch", [None, 0, 1, 2])
def test_a_verdict_in_plain_floats_is_the_same(
    tmp_path: Path, epoch: int | None, error: float
) -> None:
    subject = rules() if epoch is None else rules(7200.0 * epoch, secrecy=secret(tmp_path))
    drawn = {name: 2 * each for name, each in scores(200, 11).items()}
    kinds = set()
    for i, expected in enumerate(subject.judge(drawn)):
        row = {name: each[i].item() for name, each in drawn.items()}
        around = {name: (each - error, each + error) for name, each in row.items()}
        found = subject.verdict(subject.whole, around)
        assert found is not None
        assert found.verdict is expected.verdict
        assert found.score == pytest.approx(expected.score, rel=1e-5)
        assert found.threshold == expected.threshold
        assert found.p_values == pytest.approx(expected.p_values, abs=1e-9 if not error else 2e-3)
        assert list(found.p_values) == list(expected.p_values)
        assert found.reason == expected.reason
        kinds.add(found.verdict)
    assert kinds == {Verdict.PASS, Verdict.SUSPICIOUS}


def test_plain_floats_give_no_verdict_where_they_do_not_tell_it() -> None:
    subject = rules()
    whole = subject.whole
    usual = dict.fromkeys(NAMES, (0.0, 0.0))
    found = subject.verdict(whole, usual)
    assert found is not None
    assert found.verdict is Verdict.PASS
    for broken in (math.nan, math.inf, -math.inf):
        assert subject.verdict(whole, {**usual, "margin": (broken, broken)}) is None
    assert subject.verdict(whole, {**usual, "margin": (0.0, 0.1)}) is None, "its score is not known"
    # The score that is just suspicious, between those that pass and those that do not.
    low, high = 0.0, 9.0
    for _ in range(60):
        middle = (low + high) / 2
        bounds = whole.bounds({**usual, "margin": (middle, middle)})
        assert bounds is not None
        low, high = (low, middle) if bounds[1] > whole.threshold.value else (middle, high)
    assert subject.verdict(whole, {**usual, "margin": (high, high)}) is None
    assert subject.verdict(whole, {**usual, "margin": (high - 0.01, high - 0.01)}) is not None
    assert subject.verdict(whole, {**usual, "margin": (high + 0.01, high + 0.01)}) is not None


@pytest.mark.parametrize("cascade", [None, {"clean": 0.5, "suspicious": 0.001}])
def test_a_threshold_has_a_wider_one_where_drift_wants_it(cascade: dict[str, float] | None) -> None:
    drift = {"on_alarm": "widen", "widen_to": 4}
    subject, narrow = rules(drift=drift, cascade=cascade), rules(fpr=0.005, cascade=cascade)
    for level, threshold in subject.thresholds.items():
        assert subject.wider(threshold.value) == narrow.thresholds[level].value
        assert subject.wider(threshold.value) > threshold.value
    assert subject.wider(math.inf) == math.inf, "no rule's"
    plain = rules(cascade=cascade)
    value = plain.thresholds["views"].value
    assert plain.wider(value) == value, "nobody asked for it"


def test_no_wider_threshold_is_asked_of_a_calibration_than_it_has() -> None:
    subject = rules(drift={"on_alarm": "widen", "widen_to": 1000})
    least = rules(fpr=CALIBRATION.least_fpr)
    for level, threshold in subject.thresholds.items():
        assert subject.wider(threshold.value) == least.thresholds[level].value


def test_wider_thresholds_follow_the_draw_and_stay_few(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    time = [0.0]
    cfg = Model.model_validate(
        {
            **{"calibration": "c", "detectors": [{"name": name} for name in NAMES], "fpr": 0.02},
            **{"drift": {"on_alarm": "widen"}, "secrecy": {"key_file": key, "rotate_hours": 1}},
        }
    )
    subject = Rules("cnn", cfg, CALIBRATION, PARTS, now=lambda: time[0])
    for _ in range(3):
        time[0] += 3600
        assert subject.rotate()
        for threshold in subject.thresholds.values():
            assert subject.wider(threshold.value) > threshold.value
