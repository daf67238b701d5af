"""What an operator is told of a drift."""

from __future__ import annotations

import logging

import pytest

from proxy.drift.population import Population
from proxy.drift.state import Look, State
from proxy.drift.telling import tell, withheld
from tests.proxy.drift.monitored import Clock
from tests.proxy.drift.samples import population

SETTINGS = {"on_alarm": "suspend"}


@pytest.fixture
def subject() -> Population:
    return population(Clock(), SETTINGS)


def drifting(*, by_stretch: bool) -> State:
    look = Look(by_stretch=by_stretch)
    return State("s").tested("count", look, alarm=True, calm=False, clear_after=2)


def test_its_beginning_and_its_end_are_told_once(
    subject: Population, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "proxy.drift.telling")
    begun = drifting(by_stretch=False)
    for before, after in ((State("s"), begun), (begun, begun), (begun, State("s"))):
        tell(subject, before, after)
    first, second = (record.getMessage() for record in caplog.records)
    assert "suspicious requests are flagged only" in first
    assert "like its calibration again" in second


def test_what_one_caller_may_have_caused_is_withheld_and_said(
    subject: Population, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "proxy.drift.telling")
    tell(subject, State("s"), drifting(by_stretch=True))
    assert "suspend is withheld" in caplog.text
    assert withheld(subject, drifting(by_stretch=True)) is not None
    assert withheld(subject, drifting(by_stretch=False)) is None
    assert withheld(subject, State("s")) is None
