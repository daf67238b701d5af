"""What becomes of a flow, and of hostile and odd values in it."""

from __future__ import annotations

import json
import math

import pytest

from proxy.flow import Action, Verdict
from proxy.records.record import (
    MAX_SAMPLES,
    MAX_TEXT,
    Record,
    is_notable,
    label_of,
    notable_samples,
    record_of,
    total_ms,
)
from tests.proxy.records.flows import flow, sample, suspicious


def test_a_record_holds_what_was_decided_and_why() -> None:
    found = record_of(suspicious(action=Action.PURIFY, chain=3), 0, 1234.56789, thumbnail="x")
    assert (found.id, found.time_s, found.verdict) == ("r0:0", 1234.568, "suspicious")
    assert (found.action, found.chain, found.thumbnail) == ("purify", 3, "x")
    assert found.scores == {"residual": 8.0, "margin": 9.0}
    assert found.stage_ms == {"score": 2.0, "total": 5.0}


def test_json_and_back_with_what_json_has_no_number_for() -> None:
    failed = flow(sample((math.nan, math.inf), Verdict.FAILED))
    found = record_of(failed, 0, 1.0)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert '"score": null' in text
    again = Record.from_json({**json.loads(text), "of a later version": 1})
    assert math.isnan(again.score)
    assert again.to_json() == found.to_json()


@pytest.mark.parametrize("value", [{}, {"id": "a:0"}])
def test_what_is_no_record_is_refused(value: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a record"):
        Record.from_json(value)


def test_what_clients_choose_is_cut() -> None:
    hostile = "\x1b[2J<script>\u202e\ud800" + "x" * 100_000
    found = record_of(flow(principal=hostile, version=hostile, client_id=hostile), 0, 1.0)
    assert {len(found.principal), len(found.version), len(found.client_id)} == {MAX_TEXT}
    json.dumps(found.to_json()).encode()


def test_what_is_notable() -> None:
    assert not is_notable(flow())
    unscored = flow(quarantined=True)
    unscored.samples = ()
    assert not is_notable(unscored)
    assert is_notable(suspicious())
    assert is_notable(flow(sample(verdict=Verdict.FAILED)))
    assert is_notable(flow(chain=2))
    assert is_notable(flow(quarantined=True))


def test_of_a_batch_the_notable_samples_are_shown_and_not_too_many() -> None:
    bad = sample(verdict=Verdict.SUSPICIOUS)
    assert notable_samples(flow(sample(), bad, sample(alarm=True), sample())) == [1, 2]
    assert notable_samples(flow(sample(), sample(), quarantined=True)) == [0, 1]
    assert len(notable_samples(flow(*[bad] * 1000))) == MAX_SAMPLES


@pytest.mark.parametrize("text", ["Benign", "good", None, 1, ["benign"], {}])
def test_a_label_is_one_of_three(text: object) -> None:
    with pytest.raises(ValueError, match="benign"):
        label_of(text)
    assert label_of("") == ""


def test_time_beside_the_traffic_is_that_of_its_stages() -> None:
    assert total_ms({"score": 0.002, "views": 0.003}) == pytest.approx(5)
    assert total_ms({"score": 0.002, "total": 0.001}) == pytest.approx(1)
