"""The contract checks for users' own parts: built-in parts pass, broken ones are told why."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from detectors import DetectorError, Evidence, Need
from detectors.base import Detector
from purifiers import PURIFIERS, Purifier
from purifiers.base import Kind
from tests.test_contract import EACH, SHAPE, SHAPES, equipped
from tests.untrained import equip
from tuning.contract import ContractBroken, check_detector, check_purifier


@pytest.mark.parametrize("spec", EACH, ids=repr)
def test_detectors_of_our_own_pass(spec: tuple[str, dict[str, object]]) -> None:
    kinds = equipped(spec).kinds
    shape = SHAPE if Kind.IMAGE in kinds else next(SHAPES[kind] for kind in kinds)
    check_detector(lambda: equipped(spec), shape=shape)


@pytest.mark.parametrize("name", PURIFIERS)
def test_purifiers_of_our_own_pass(name: str) -> None:
    purifier = PURIFIERS[name]()
    shape = SHAPE if Kind.IMAGE in purifier.kinds else (1, 50)
    equip(purifier, shape)
    check_purifier(purifier, shape=shape)


class Sound(Detector):
    """The brightness and the largest logit above the mean."""

    name: ClassVar[str] = "sound"
    needs: ClassVar[Need] = Need.OUTPUT
    tier: ClassVar[int] = 1

    def _score(self, evidence: Evidence) -> Tensor:
        output = evidence.output
        assert output is not None
        return evidence.x.flatten(1).mean(1) + output.amax(1) - output.mean(1)


class Deaf(Sound):
    def _score(self, evidence: Evidence) -> Tensor:
        return super()._score(evidence).nan_to_num()


class Sociable(Sound):
    def _score(self, evidence: Evidence) -> Tensor:
        scores = super()._score(evidence)
        return scores - scores.mean()


class Scaled(Sound):
    def _score(self, evidence: Evidence) -> Tensor:
        assert evidence.output is not None
        return evidence.output.sum(1) + 0 * evidence.x.flatten(1).sum(1)


class Random(Sound):
    def _score(self, evidence: Evidence) -> Tensor:
        return super()._score(evidence) + torch.rand(len(evidence.x))


class Scribbling(Sound):
    def _score(self, evidence: Evidence) -> Tensor:
        scores = super()._score(evidence)
        evidence.x.mul_(1)[:1, 0, 0, 0] += 1
        return scores * 0 + evidence.x[:, 0, 0, 1] if len(scores) else scores


class Forgetful(Sound):
    def fit(self, benign: object) -> None:
        self.mean = torch.ones(1)

    def state(self) -> dict[str, Tensor]:
        return {"mean": torch.ones(1)}

    def load_state(self, state: object, device: torch.device) -> None:
        """Takes anything, and works without."""


def test_a_sound_detector_passes() -> None:
    check_detector(Sound)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Deaf, "NaN gives its sample"),
        (Sociable, "a batch equals its samples"),
        (Scaled, "a constant added to all logits"),
        (Random, "the same evidence has the same score"),
        (Scribbling, "the input is left as it is"),
        (Forgetful, "a detector that learns is not used unfitted"),
    ],
)
def test_a_broken_detector_is_told_which_rule(broken: type[Detector], words: str) -> None:
    with pytest.raises(ContractBroken, match=words):
        check_detector(broken)


class Dim(Purifier):
    """Halves the brightness."""

    name: ClassVar[str] = "dim"

    @property
    def key(self) -> str:
        return "dim"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x / 2


class Undeclared(Dim):
    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x + torch.rand(len(x), 1, 1, 1, generator=generator)


class Declared(Dim):
    is_random = True


class Levelling(Dim):
    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x - x.mean(0, keepdim=True) if len(x) else x


def test_purifiers_are_told_which_rule() -> None:
    check_purifier(Dim())
    for broken, words in (
        (Undeclared(), "is_random"),
        (Declared(), "is_random"),
        (Levelling(), "a batch equals its samples"),
    ):
        with pytest.raises(ContractBroken, match=words):
            check_purifier(broken)


def test_errors_of_the_part_itself_come_through() -> None:
    with pytest.raises(DetectorError, match="needs at least 20 benign samples"):
        check_detector(lambda: equipped(("ensemble", {"models": ["one"]})), benign=5)
