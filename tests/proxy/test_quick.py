"""Which judgements are made on the event loop, and that they come out the same there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detectors import build
from detectors.base import Detector, Evidence, Need
from detectors.margin import Margin
from proxy.case import Case, Glance, Pixels
from proxy.quick import MOST_VALUES, is_light, is_quick
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


def looked_at(scorer: Scorer, count: int = 2) -> Glance:
    x = np.ascontiguousarray(CLEAN[:count])
    (glance,) = scorer.look([Pixels(x.tobytes(), x.shape, copies=False)])
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
