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
from proxy.rules import Rules, evidence_levels

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


def test_a_cascade_settles_a_request_when_every_sample_is_settled() -> None:
    subject = rules(cascade={"clean": 0.5, "suspicious": 0.001})
    quiet, loud, doubtful, broken = -1.0, 30.0, 1.7, math.nan
    batch = torch.tensor([quiet, loud, quiet, doubtful, broken, quiet, loud])
    settled = subject.settle({"residual": batch}, [2, 2, 2, 0, 1])
    verdicts = [None if found is None else [s.verdict for s in found] for found in settled]
    both = [Verdict.PASS, Verdict.SUSPICIOUS]
    assert verdicts == [both, None, None, [], [Verdict.SUSPICIOUS]]
    assert rules().settle({"residual": batch}, [7]) == [None]
    assert subject.settle({}, [7]) == [None]


def test_what_is_settled_early_is_judged_the_same_later() -> None:
    subject = rules(cascade={"clean": 0.5, "suspicious": 0.001})
    drawn = scores(300, 5)
    later = subject.judge(drawn)
    settled = subject.settle({"residual": drawn["residual"]}, [1] * 300)
    early = [(found[0], later[i]) for i, found in enumerate(settled) if found is not None]
    assert 100 < len(early) < 300
    for before, after in early:
        assert before.score == pytest.approx(after.score)
        assert before.verdict is after.verdict


def test_a_settled_sample_names_a_detector_that_was_there() -> None:
    subject = rules(cascade={"clean": 0.5, "suspicious": 0.001})
    (sample,) = subject.judge(
        {name: torch.tensor([30.0 if name == "residual" else math.nan]) for name in NAMES}
    )
    assert (sample.verdict, sample.reason) == (Verdict.SUSPICIOUS, "residual")
    # The other way round, NaN first in the table.
    scores = {name: torch.tensor([math.nan]) for name in reversed(NAMES)}
    (sample,) = subject.judge({**scores, "residual": torch.tensor([30.0])})
    assert (sample.verdict, sample.reason) == (Verdict.SUSPICIOUS, "residual")


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
