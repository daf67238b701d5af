"""The device side: pixels to scores to verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectors.base import Need
from proxy.adapt import ModelSpec
from proxy.artifacts import Artifact, load
from proxy.case import Case, Glance, Pixels
from proxy.config import Model
from proxy.errors import ConfigError, DetectorFailed, InvalidTensor
from proxy.flow import SampleVerdict
from proxy.parts import build_detectors
from proxy.scoring import Scorer, check_evidence
from purifiers import Median
from tests.defended import each, settings_of
from tests.images import benign, tampered
from tests.proxy.test_tensors import SPEC

pytestmark = pytest.mark.triton  # the calibrations come from the models it serves

CPU = torch.device("cpu")
CLEAN = benign(5, seed=77)
WEIGHTS = np.random.default_rng(0).normal(0, 0.2, (3 * 32 * 32, 10)).astype("f4")


def answers(x: np.ndarray) -> np.ndarray:
    """What digits_like answers."""
    return (x.reshape(len(x), -1) - 0.5) @ WEIGHTS


def scorer(
    calibrations: Path, name: str = "digits_like", spec: ModelSpec = SPEC, **fields: Any
) -> Scorer:
    model = Model.model_validate(settings_of(calibrations, {name: fields})[name])
    artifact = load(calibrations / name, name, model, CPU)
    return Scorer(spec, model, artifact, CPU, lambda detector, seconds: None)


def pixels(x: np.ndarray, *, copies: bool = True) -> Pixels:
    return Pixels(x.tobytes(), x.shape, copies)


def case(glance: Glance, *, output: bool = True, views: bool = True) -> Case:
    views_of = {
        key: answers(np.frombuffer(raw, np.float32).reshape(glance.x.shape))
        for key, raw in glance.copies.items()
    }
    found = answers(glance.x.numpy()) if output else None
    return Case(glance, found, views_of if views else {})


def verdicts(subject: Scorer, parts: Sequence[np.ndarray], **kinds: Any) -> list[Any]:
    glances = subject.look([pixels(x) for x in parts])
    return subject.judge([case(g, **kinds) for g in glances if isinstance(g, Glance)])


def test_what_a_scorer_asks_for(calibrations: Path) -> None:
    subject = scorer(calibrations)
    assert subject.needs_output
    assert subject.asks_queries
    assert [d.name for d in subject.detectors] == [
        *("residual", "margin", "energy", "feature_squeezing")
    ]
    assert subject.provenance.model == "digits_like"
    assert subject.samples((4, 3, 32, 32)) == 4
    quiet = scorer(calibrations, "digits_like_fp16", replace(SPEC, datatype="FP16"))
    assert not quiet.needs_output
    assert not quiet.asks_queries
    assert set(quiet.threshold_bounds) == {"input"}


def test_many_requests_in_one_pass_are_as_each_alone(calibrations: Path) -> None:
    subject = scorer(calibrations)
    parts = [CLEAN[:2], tampered(CLEAN)[2:3], CLEAN[3:]]
    together = verdicts(subject, parts)
    alone = [verdicts(subject, [x])[0] for x in parts]
    assert [each(v) for v in together] == [["pass"] * 2, ["suspicious"], ["pass"] * 2]
    for found, expected in zip(together, alone, strict=True):
        for a, b in zip(found, expected, strict=True):
            assert a.score == pytest.approx(b.score, rel=1e-4)
            assert a.p_values == pytest.approx(b.p_values)
            assert min(a.p_values.values()) > 0


def test_only_those_who_want_copies_get_them(calibrations: Path) -> None:
    with_, without = scorer(calibrations).look([pixels(CLEAN[:2]), pixels(CLEAN[2:], copies=False)])
    assert isinstance(with_, Glance)
    assert isinstance(without, Glance)
    assert without.copies == {}
    expected = Median(2).purify(torch.from_numpy(CLEAN[:2])).numpy()
    assert with_.copies["median(size=2)"] == expected.tobytes()


def test_one_that_cannot_be_decoded_fails_alone(calibrations: Path) -> None:
    subject = scorer(calibrations)
    first, bad, last = subject.look([pixels(CLEAN[:1]), pixels(CLEAN * 99), pixels(CLEAN[1:2])])
    assert isinstance(bad, InvalidTensor)
    assert isinstance(first, Glance)
    assert isinstance(last, Glance)
    assert np.array_equal(last.x.numpy(), CLEAN[1:2])
    assert [type(g) for g in subject.look([pixels(CLEAN * 99)])] == [InvalidTensor]


@pytest.mark.parametrize(
    ("output", "views", "names"),
    [
        (False, False, {"residual"}),
        (True, False, {"residual", "margin", "energy"}),
        (True, True, {"residual", "margin", "energy", "feature_squeezing"}),
    ],
)
def test_every_level_of_evidence_has_a_threshold_of_its_own(
    calibrations: Path, output: bool, views: bool, names: set[str]
) -> None:
    subject = scorer(calibrations)
    (found,) = verdicts(subject, [CLEAN], output=output, views=views)
    level = (Need.INPUT, Need.OUTPUT, Need.VIEWS)[output + views]
    assert {frozenset(sample.p_values) for sample in found} == {frozenset(names)}
    assert {s.threshold for s in found} == {subject.threshold_bounds[level.value][0]}
    assert each(found) == ["pass"] * 5


def test_no_detector_for_the_evidence_is_a_failure(calibrations: Path) -> None:
    subject = scorer(
        calibrations, "digits_like_probabilities", replace(SPEC, output_kind="probabilities")
    )
    found = verdicts(subject, [CLEAN[:1], CLEAN[1:]], output=False, views=False)
    assert [(type(f), f.reason) for f in found] == [(DetectorFailed, "no_evidence")] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_no_verdict(calibrations: Path, bad: float) -> None:
    subject = scorer(calibrations)
    (glance,) = subject.look([pixels(CLEAN)])
    assert isinstance(glance, Glance)
    whole = case(glance)
    assert whole.output is not None
    whole.output[2, 3] = bad
    (found,) = subject.judge([whole])
    assert not isinstance(found, Exception)
    assert each(found) == ["pass", "pass", "failed", "pass", "pass"]
    assert found[2].reason == "non_finite"


def test_the_reason_is_the_detector_that_weighs_most(calibrations: Path) -> None:
    (found,) = verdicts(scorer(calibrations), [tampered(CLEAN)[:1]])
    sample: SampleVerdict = found[0]
    assert sample.p_values[sample.reason] == min(sample.p_values.values())


# -- what is refused when it is built --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output": None, "output_kind": "none"}, "kind is none, but margin, energy, feature_sq"),
        ({"stateful": True}, "a stateful or decoupled model cannot be asked"),
        ({"decoupled": True}, "a stateful or decoupled model cannot be asked"),
    ],
)
def test_detectors_that_never_have_their_evidence_are_refused(
    calibrations: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        scorer(calibrations, spec=replace(SPEC, **change))


def test_detectors_on_the_input_suit_every_model() -> None:
    parts = build_detectors(
        Model.model_validate({"detectors": [{"name": "residual"}], "calibration": "x"})
    )
    check_evidence(replace(SPEC, output=None, stateful=True, decoupled=True), parts)


def test_a_rate_the_calibration_does_not_support_is_refused(calibrations: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.m: .*0\.0001 needs"):
        scorer(calibrations, fpr=0.0001)


def test_states_of_another_kind_are_refused(calibrations: Path) -> None:
    name = "digits_like"
    model = Model.model_validate(settings_of(calibrations, {name: {}})[name])
    good = load(calibrations / name, name, model, CPU)
    bad = Artifact(good.calibration, {**good.states, "residual": {}}, good.provenance)
    with pytest.raises(ConfigError, match=r"the calibration does not fit: .*calibrate again"):
        Scorer(SPEC, model, bad, CPU, lambda detector, seconds: None)
