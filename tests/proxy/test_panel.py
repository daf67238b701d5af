"""Detectors run for the samples in doubt, on the evidence that is there."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from detectors import Detector, Evidence, Need
from detectors.calibration import Calibration
from detectors.rule import Cascade
from proxy.breaker import FAILURES
from proxy.cascade import Stand
from proxy.panel import Panel, is_there
from purifiers import Median, Purifier


class Brightness(Detector):
    """The mean of the input."""

    name: ClassVar[str] = "brightness"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def _score(self, evidence: Evidence) -> Tensor:
        self.batches.append(len(evidence.x))
        return evidence.x.flatten(1).mean(1)


class First(Brightness):
    """The first class's score."""

    name: ClassVar[str] = "first"
    needs: ClassVar[Need] = Need.OUTPUT
    tier: ClassVar[int] = 1

    def _score(self, evidence: Evidence) -> Tensor:
        assert evidence.output is not None
        self.batches.append(len(evidence.x))
        return evidence.output[:, 0].clone()


class View(First):
    """The first class's score for a copy."""

    name: ClassVar[str] = "view"
    needs: ClassVar[Need] = Need.VIEWS
    tier: ClassVar[int] = 2

    @property
    def views(self) -> tuple[Purifier, ...]:
        """See `Detector.views`."""
        return (Median(2),)

    def _score(self, evidence: Evidence) -> Tensor:
        self.batches.append(len(evidence.x))
        return evidence.views["median(size=2)"][:, 0].clone()


NAMES = ("brightness", "first", "view")
BENIGN = {
    name: torch.randn(300, generator=torch.Generator().manual_seed(i)) * 0.1
    for i, name in enumerate(NAMES)
}
RULE = Calibration.fit({"clean": BENIGN}).rule(
    [NAMES[:1], NAMES[:2], NAMES], 0.05, cascade=Cascade(0.5, 0.001)
)
ORDINARY, DOUBTFUL, ODD, PLAIN = -0.5, 0.02, 0.15, 9.0
KEY = "median(size=2)"


def images(*means: float) -> Tensor:
    return torch.tensor(means)[:, None, None, None].expand(-1, 3, 4, 4)


@pytest.fixture
def parts() -> tuple[Brightness, First, View]:
    return Brightness(), First(), View()


def test_each_level_is_run_for_the_samples_in_doubt(parts: tuple[Brightness, ...]) -> None:
    panel, x = (
        Panel(parts, lambda name, seconds: None, 60.0),
        images(ORDINARY, DOUBTFUL, PLAIN, DOUBTFUL),
    )
    stand = panel.advance(Stand.start(RULE, 4), Evidence(x))
    assert (stand.rows, stand.level, panel.asks_more(stand)) == ((1, 3), 1, False)
    output = torch.tensor([[ODD, 0.0], [ORDINARY, 0.0]])
    stand = panel.advance(stand, Evidence(x[[1, 3]], output))
    assert (stand.rows, stand.level, panel.asks_more(stand)) == ((1,), 2, True)
    view = {KEY: torch.tensor([[PLAIN, 0.0]])}
    stand = panel.advance(stand, Evidence(x[[1]], output[:1], view))
    assert (stand.rows, stand.reached) == ((), (0, 2, 0, 1))
    assert [part.batches for part in parts] == [[4], [2], [1]]
    assert (stand.fused > RULE.threshold.value).tolist() == [False, True, True, False]


def test_all_that_is_there_is_used_in_one_go(parts: tuple[Brightness, ...]) -> None:
    panel, x = Panel(parts, lambda name, seconds: None, 60.0), images(ORDINARY, DOUBTFUL, DOUBTFUL)
    answers = torch.tensor([[ODD, 0.0], [ORDINARY, 0.0], [ODD, 0.0]])
    stand = panel.advance(Stand.start(RULE, 3), Evidence(x, answers, {KEY: answers}))
    assert stand.reached == (0, 1, 2)
    assert [part.batches for part in parts] == [[3], [2], [1]]


def test_every_pass_is_told(parts: tuple[Brightness, ...]) -> None:
    told: list[str] = []
    Panel(parts, lambda name, seconds: told.append(name), 60.0).score(
        parts[:1], Evidence(images(0.0))
    )
    assert told == ["brightness"]


def test_who_has_what_it_looks_at(parts: tuple[Brightness, ...]) -> None:
    panel = Panel(parts, lambda name, seconds: None, 60.0)
    assert panel.available(output=False, chain=True, views=None) == ["brightness"]
    assert panel.available(output=True, chain=False, views=()) == ["brightness", "first"]
    assert panel.available(output=True, chain=False, views=[KEY]) == list(NAMES)
    assert panel.available(output=True, chain=False, views=None) == list(NAMES)
    output = torch.zeros(1, 2)
    assert [is_there(part, Evidence(images(0.0))) for part in parts] == [True, False, False]
    assert [is_there(part, Evidence(images(0.0), output)) for part in parts] == [True, True, False]


def test_a_detector_slower_than_the_limit_is_left_out_in_the_end() -> None:
    parts = (Brightness(), First())
    panel = Panel(parts, lambda name, seconds: None, 0.0)
    for _ in range(FAILURES):
        panel.score(parts[:1], Evidence(images(ORDINARY)))
    assert panel.circuits.admit().left_out == {"brightness"}


class Greedy(Brightness):
    """Never fits."""

    def _score(self, evidence: Evidence) -> Tensor:
        raise torch.OutOfMemoryError


def test_memory_that_does_not_suffice_is_no_detectors_fault() -> None:
    panel = Panel([Greedy()], lambda name, seconds: None, 60.0)
    for _ in range(2 * FAILURES):
        with pytest.raises(torch.OutOfMemoryError):
            panel.score([Greedy()], Evidence(images(ORDINARY)))
    assert panel.circuits.admit().left_out == frozenset()
