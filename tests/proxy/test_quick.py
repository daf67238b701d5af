"""Which judgements are made on the event loop, and that they come out the same there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from detectors import build
from detectors.base import Detector, Evidence, Need
from detectors.margin import Margin
from proxy.case import Case, Glance, Pixels
from proxy.flow import Verdict
from proxy.quick import MOST_IN_ROW, MOST_VALUES, is_light, is_quick
from proxy.scoring import Scorer
from tests.images import CLEAN
from tests.proxy.test_engine import engine

ALL = frozenset({"residual", "margin", "energy", "feature_squeezing"})


class PlugIn(Margin):
    """Somebody else's, whatever it is called."""


class Stranger(Detector):
    """A detector that the project does not know."""

    name: ClassVar[str] = "stranger"
    needs: ClassVar[Need] = Need.OUTPUT
    tier: ClassVar[int] = 1

    def _score(self, evidence: Evidence) -> torch.Tensor:
        return evidence.x.new_zeros(len(evidence.x))


@pytest.mark.parametrize(
    ("name", "light"),
    [
        *(("margin", True), ("energy", True), ("jpeg_view", True), ("history", True)),
        *(("srm", False), ("surrogate", False), ("residual_cnn", False)),
    ],
)
def test_what_is_light(name: str, light: bool) -> None:
    assert is_light(build(name, {})) is light


@pytest.mark.parametrize("part", [PlugIn(), Stranger()])
def test_what_the_project_does_not_know_is_not_light(part: Detector) -> None:
    assert not is_light(part)


def looked_at(scorer: Scorer, count: int = 2, left_out: frozenset[str] = frozenset()) -> Glance:
    x = np.ascontiguousarray(CLEAN[:count])
    (glance,) = scorer.look([Pixels(x.tobytes(), x.shape, copies=False, left_out=left_out)])
    assert isinstance(glance, Glance)
    return glance


def answer(count: int = 2, classes: int = 10) -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(0, 3, (count, classes)).astype("f4")


@pytest.mark.triton
def test_when_a_judgement_is_quick(calibrations: Path) -> None:
    glance = looked_at(engine(calibrations))
    views = {"median(size=2)": answer(), "bit_depth(bits=5)": answer()}
    case = Case(glance, answer(), views)
    assert is_quick(case, ALL)
    assert not is_quick(case, ALL - {"margin"}), "a detector that may take its time"
    assert is_quick(case, ALL - {"residual"}), "it has looked already"
    assert not is_quick(replace(case, more=True), ALL), "copies may have to be made"
    assert not is_quick(replace(case, output=None), ALL)
    many = Case(glance, answer(classes=MOST_VALUES // 2), {})
    assert is_quick(many, ALL)
    assert not is_quick(replace(many, views=views), ALL)
    chain = np.zeros((2, 3), "f4")
    assert is_quick(replace(case, chain=chain), ALL)
    assert not is_quick(replace(many, chain=chain), ALL), "the history reads the pixels too"


@pytest.mark.triton
def test_the_verdicts_are_those_of_the_device_thread(calibrations: Path) -> None:
    subject = engine(calibrations)
    case = Case(looked_at(subject), answer(), {})
    assert subject.is_quick(case)
    assert [subject.judge_here(case)] == subject.judge([case])


class Operations(TorchDispatchMode):
    """Notes the operations on tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.noted.append(str(func))
        return func(*args, **(kwargs or {}))


SQUEEZING = frozenset({"feature_squeezing"})
"""Left out, the rule is for what looks at the input and at the model's answer."""


def judged(subject: Scorer, case: Case) -> tuple[Any, list[str]]:
    """The verdict on a lone sample, and the operations on tensors it took."""
    with Operations() as operations:
        found = subject.judge_here(case)
    assert isinstance(found, tuple)
    return found[0], operations.noted


@pytest.mark.triton
@pytest.mark.parametrize("cascade", [None, {"clean": 0.5, "suspicious": 0.0001}])
def test_a_lone_sample_is_judged_without_tensors(
    calibrations: Path, cascade: dict[str, float] | None
) -> None:
    timed: list[str] = []
    subject = engine(calibrations, timed=timed, cascade=cascade)
    glance = looked_at(subject, 1, SQUEEZING)
    kinds = set()
    for scale in (0.01, 0.3, 1.0, 3.0, 30.0, 1e4):
        case = Case(glance, scale * answer(1), {})
        timed.clear()
        found, operations = judged(subject, case)
        assert operations == []
        assert timed == ["margin", "energy"]
        ((expected,),) = subject.judge([case])
        assert found.verdict is expected.verdict
        assert found.score == pytest.approx(expected.score, rel=1e-5)
        assert found.p_values == pytest.approx(expected.p_values, abs=2e-2)
        kinds.add(found.verdict)
    assert kinds == {Verdict.PASS, Verdict.SUSPICIOUS}


@pytest.mark.triton
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_goes_to_the_tensors(calibrations: Path, bad: float) -> None:
    subject = engine(calibrations)
    output = answer(1)
    output[0, :] = [bad] * 10
    found, operations = judged(subject, Case(looked_at(subject, 1, SQUEEZING), output, {}))
    assert operations
    assert found.verdict is Verdict.FAILED


@pytest.mark.triton
def test_what_is_judged_by_tensors(calibrations: Path) -> None:
    subject = engine(calibrations)
    long = answer(1, classes=MOST_IN_ROW + 1)
    assert judged(subject, Case(looked_at(subject, 1, SQUEEZING), long, {}))[1]
    assert judged(subject, Case(looked_at(subject, 2, SQUEEZING), answer(2), {}))[1]
    # Copies had been hoped for, and the sample starts again by the rule without them.
    case = Case(looked_at(subject, 1), answer(1), {})
    found, _ = judged(subject, case)
    ((expected,),) = subject.judge([case])
    assert found.verdict is expected.verdict
