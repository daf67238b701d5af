"""Live scores and an evaluation under other policies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxy.errors import ConfigError
from proxy.explorer.explorer import MOST_SWEEPS, Explorer
from tests.proxy.explorer.scores import (
    DIGEST,
    NAMES,
    a_calibration,
    a_model,
    a_snapshot,
    an_evaluation,
    drawn,
)


def explorer(**fields: Any) -> Explorer:
    return Explorer({"m": (a_model(**fields), a_calibration())}, lambda _: DIGEST)


def ask(subject: Explorer, candidate: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    snapshot = more.pop("snapshot", None) or a_snapshot(drawn(100, 3, 0.5))
    return subject.explore("m", candidate, snapshot, more.pop("purify_ms", []))


def flagged(fused: list[float | None], threshold: float) -> int:
    return sum(each is not None and each > threshold for each in fused)


def test_the_policy_in_force_alone() -> None:
    answer = ask(explorer(), purify_ms=[1.0, 2.0, 3.0])
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["candidate"] is None
    assert (answer["evaluation"], answer["evaluation_problem"]) == (None, "")
    live = answer["live"]
    assert (len(live["ids"]), live["unknown"], live["seen"], live["kept"]) == (100, 0, 1000, 100)
    assert {len(each) for each in live.values() if isinstance(each, list)} == {100}
    assert answer["purify_ms"] == {"p50": 2.0, "p99": pytest.approx(2.98)}
    # Fewer are flagged the lower the rate; at the policy's own rate as many as it flags.
    counts = [flagged(live["fused"], threshold) for threshold in answer["thresholds"]]
    assert counts == sorted(counts)
    assert 0 < flagged(live["fused"], answer["current"]["threshold"]) < 100


def test_another_rate_moves_only_the_threshold() -> None:
    answer = ask(explorer(), {"fpr": 0.2})
    other = answer["candidate"]
    assert other["live"]["fused"] == answer["live"]["fused"]
    assert other["thresholds"] == answer["thresholds"]
    assert other["threshold"] < answer["current"]["threshold"]


def test_samples_without_all_scores_are_left_out_and_counted() -> None:
    scores = drawn(100, 3)
    scores[:30, 2] = np.nan
    snapshot = a_snapshot(scores)
    answer = ask(explorer(), {"detectors": list(NAMES[:2])}, snapshot=snapshot)
    assert answer["live"]["ids"] == [f"r{row}:0" for row in range(30, 100)]
    assert answer["live"]["unknown"] == 30
    assert answer["candidate"]["live"]["unknown"] == 0
    answer = ask(explorer(cascade={}), {"cascade": None}, snapshot=snapshot)
    shown = len(answer["live"]["ids"])
    assert 70 < shown < 100  # a cascade settles some without the third detector
    assert answer["candidate"]["live"]["unknown"] == shown - 70
    assert answer["candidate"]["live"]["fused"].count(None) == shown - 70


def test_detectors_that_were_never_recorded_say_nothing() -> None:
    answer = ask(explorer(), snapshot=a_snapshot(drawn(5, 3)[:, :2], NAMES[:2]))
    assert (answer["live"]["ids"], answer["live"]["unknown"]) == ([], 5)
    assert ask(explorer(), snapshot=a_snapshot(drawn(0, 3)))["live"]["fused"] == []


def test_the_evaluation_is_shown_under_both_policies(tmp_path: Path) -> None:
    subject = explorer(evaluation=an_evaluation(tmp_path / "e"))
    answer = ask(subject, {"detectors": ["residual"]})
    pgd = answer["evaluation"]["attacks"]["pgd"]
    assert (pgd["threat"], pgd["tuned_on"], pgd["right"]) == ("oblivious", True, [0] * 40)
    assert flagged(pgd["fused"], answer["current"]["threshold"]) > 10
    assert len(answer["evaluation"]["benign"]["clean"]) == 30
    assert (list(answer["evaluation"]["ood"]), answer["evaluation"]["unseen"]) == (["noise"], {})
    assert answer["evaluation"]["date"] == "2026-11-23"
    other = answer["candidate"]["evaluation"]["attacks"]["pgd"]["fused"]
    assert len(other) == 40
    assert other != pgd["fused"]


def test_an_evaluation_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    subject = explorer(evaluation=folder)
    assert "report.json is missing. Run `breakwater evaluate" in ask(subject)["evaluation_problem"]
    an_evaluation(folder)
    assert ask(subject)["evaluation_problem"] == ""
    (folder / "scores.safetensors").write_bytes(b"damaged")
    answer = ask(subject)
    assert answer["evaluation"] is None
    assert "scores.safetensors cannot be used" in answer["evaluation_problem"]
    an_evaluation(folder, model="n")
    assert "of model 'n', not 'm'" in ask(subject)["evaluation_problem"]
    os.remove(folder / "report.json")
    assert "missing" in ask(subject)["evaluation_problem"]


@pytest.mark.parametrize("defence", ["e" * 64, "", None, 7, ["\x1b"]])
def test_an_evaluation_of_another_defence_is_shown_with_a_warning(
    tmp_path: Path, defence: object
) -> None:
    folder = an_evaluation(tmp_path / "e", {"defence": defence})
    answer = ask(explorer(evaluation=folder), {"fpr": 0.1})
    for side in (answer, answer["candidate"]):
        assert side["evaluation"]["attacks"]["pgd"]["fused"]
        assert "another calibration or other detectors" in side["evaluation_problem"]
        assert "run `breakwater evaluate` again" in side["evaluation_problem"]


def test_an_evaluation_with_other_detectors(tmp_path: Path) -> None:
    names = (*NAMES, "energy")
    model = a_model(names, evaluation=an_evaluation(tmp_path / "e"))
    subject = Explorer({"m": (model, a_calibration(names=names))}, lambda _: DIGEST)
    snapshot = a_snapshot(drawn(5, 1, width=4), names)
    answer = subject.explore("m", {"detectors": list(NAMES)}, snapshot, [])
    assert answer["evaluation"] is None
    assert "has no scores of energy" in answer["evaluation_problem"]
    assert answer["candidate"]["evaluation"] is not None
    assert answer["candidate"]["evaluation_problem"] == ""


def test_an_attack_without_a_series_follows_on_no_query(tmp_path: Path) -> None:
    names = (*NAMES, "history")
    model = a_model(names, evaluation=an_evaluation(tmp_path / "e"))
    subject = Explorer({"m": (model, a_calibration(names=names))}, lambda _: DIGEST)
    answer = subject.explore("m", None, a_snapshot(drawn(5, 1, width=4), names), [])
    assert len(answer["evaluation"]["attacks"]["pgd"]["fused"]) == 40


def test_a_model_without_detectors_has_nothing_to_explore() -> None:
    with pytest.raises(ConfigError, match=r"'no\\x1bne' has no detectors"):
        explorer().explore("no\x1bne", None, a_snapshot(drawn(5, 3)), [])


def test_a_rate_below_what_the_calibration_supports() -> None:
    with pytest.raises(ConfigError, match="the least rate these support is"):
        ask(explorer(), {"fpr": 0.0001})


def test_few_fits_are_kept() -> None:
    subject = explorer()
    for i in range(MOST_SWEEPS + 3):
        ask(subject, {"fpr": 0.05 + i / 1000})
    assert len(subject._sweeps) == MOST_SWEEPS
