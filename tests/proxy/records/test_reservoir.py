"""The sample of scores: uniform over distinct ones, bounded, labelled, aged out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proxy.flow import Verdict
from proxy.records.record import Label, record_of
from proxy.records.reservoir import MAX_LABELLED, SLACK, Reservoir
from proxy.records.sketch import Keyed
from tests.proxy.records.flows import KEY, SUBJECT, flow, pick, sample, shuffled, stream

HOUR = 3600.0


def reservoir(capacity: int = 100, **options: Any) -> Reservoir:
    settings: dict[str, Any] = {"now_s": 0.0, "max_age_s": HOUR, **options}
    return Reservoir(SUBJECT, capacity, Keyed(KEY), **settings)


def filled(*parts: list[Any], capacity: int = 100, now_s: float = 0.0) -> Reservoir:
    subject = reservoir(capacity)
    for part in parts:
        for each in part:
            subject.add(each, now_s)
    return subject


def ids(subject: Reservoir) -> set[str]:
    return set(subject.copy(0.0).snapshot().columns["id"])


def test_a_flood_of_copies_does_not_change_the_sample() -> None:
    plenty = stream(3000)
    copies = [flow(sample((0.5, 0.5)), id_=f"copy{i}") for i in range(2000)]
    subject = filled(shuffled(plenty + copies))
    found = subject.copy(0.0).snapshot()
    assert (found.kept, found.seen) == (100, 5000)
    one_copy = filled(plenty, [flow(sample((0.5, 0.5)), id_="copy")])
    hashes = set(found.columns["hash"])
    assert hashes == set(one_copy.copy(0.0).snapshot().columns["hash"])


def test_the_sample_is_uniform() -> None:
    counts = np.zeros(10)
    flows = stream(2000)
    for key in range(40):
        subject = Reservoir(SUBJECT, 100, Keyed(bytes([key] * 16)), now_s=0.0, max_age_s=HOUR)
        for i, each in enumerate(flows):
            each.principal = f"p{i % 17}"
            subject.add(each, 0.0)
        for id_ in ids(subject):
            counts[int(id_.split("-")[1].split(":")[0]) // 200] += 1
    # 4,000 draws over ten parts: chi-squared with 9 degrees of freedom, 33.7 at 1e-4.
    assert ((counts - 400) ** 2 / 400).sum() < 33.7


def test_the_order_does_not_matter() -> None:
    flows = stream(2000) + stream(50, seed=1, principal="bob")
    assert ids(filled(flows)) == ids(filled(shuffled(flows, 1))) == ids(filled(shuffled(flows, 2)))


def test_one_principal_does_not_push_out_the_rest() -> None:
    benign = [each for i in range(9) for each in stream(8, seed=i, principal=f"user{i}")]
    flood = stream(20_000, seed=99, principal="eve")
    subject = filled(shuffled(benign + flood))
    found = subject.copy(0.0).snapshot()
    kept = [id_ for id_ in found.columns["id"] if not id_.startswith("s99-")]
    assert len(kept) == len(benign)
    assert found.kept == 100
    assert len(set(found.columns["principal"])) == 10
    assert all(len(each) == 8 and "eve" not in each for each in found.columns["principal"])


def test_alone_a_principal_has_all_places() -> None:
    assert filled(stream(500)).copy(0.0).snapshot().kept == 100


def test_without_a_verdict_nothing_is_kept_and_missing_scores_are_counted() -> None:
    flows = [
        flow(sample((math.nan, 1.0), Verdict.FAILED)),
        flow(sample(())),
        flow(sample((1.0,))),
        flow(sample((1.0, math.nan))),  # the same, by another way
        flow(sample((1.0, 3.0))),
        flow(sample((1.0, math.inf))),
    ]
    found = filled(flows).copy(0.0).snapshot()
    assert (found.kept, found.seen, found.partial) == (3, 4, 2)
    assert found.scores["residual"] == [1.0, 1.0, 1.0]
    assert sorted(found.scores["margin"], key=str) == [3.0, None, None]


def test_columns() -> None:
    marked = flow(sample((1.5, 2.5), Verdict.SUSPICIOUS), id_="f" * 32, chain=4)
    found = filled([marked], now_s=7.0).copy(7.0).snapshot()
    columns = {name: column[0] for name, column in found.columns.items()}
    assert columns["id"] == "f" * 32 + ":0"
    assert (columns["time_s"], columns["fused"], columns["total_ms"]) == (7.0, 4.0, 5.0)
    assert (columns["verdict"], columns["action"]) == ("suspicious", "none")
    assert (columns["chain"], columns["label"]) == (True, "")


def test_a_copy_in_a_chain_marks_what_is_kept() -> None:
    for later in (flow(quarantined=True), flow(sample(alarm=True)), flow(chain=3)):
        subject = filled([flow(), later, flow()])
        assert subject.copy(0.0).snapshot().columns["chain"] == [True]


def test_what_was_not_seen_for_long_goes_and_makes_room() -> None:
    subject = filled(stream(500))
    again = stream(500)[:250]
    for each in again:
        subject.add(each, HOUR / 2)
    before = ids(subject)
    subject.expire(1.2 * HOUR)
    left = subject.copy(1.2 * HOUR).snapshot()
    assert set(left.columns["id"]) == {f"{each.request_id}:0" for each in again} & before
    for each in stream(500, seed=5):
        subject.add(each, 1.2 * HOUR)
    assert subject.copy(1.2 * HOUR).snapshot().kept == 100


def test_labels_come_with_the_sample_and_keep_it() -> None:
    subject = filled(stream(200))
    chosen = sorted(ids(subject))[0]
    assert subject.label(chosen, "benign")
    assert not subject.label("unknown", "benign")
    assert not subject.label("\ud7ff\x00", "benign")
    for each in stream(30_000, seed=3):
        subject.add(each, 0.0)
    found = subject.copy(0.0).snapshot()
    assert (chosen, "benign") in pick(found.columns, "id", "label")
    assert found.kept in (100, 101)
    assert subject.label(chosen, "adversarial")
    assert subject.label(chosen, "")
    assert set(subject.copy(0.0).snapshot().columns["label"]) == {""}


def test_a_labelled_record_that_is_not_kept_is_put_back() -> None:
    subject = filled(stream(2000))
    gone = next(each for each in stream(2000) if f"{each.request_id}:0" not in ids(subject))
    record = record_of(gone, 0, 0.0)
    labels: tuple[Label, ...] = ("adversarial", "benign")
    for label in labels:
        subject.keep(replace(record, label=label), 1.0)
    found = subject.copy(1.0).snapshot()
    assert found.kept == 101
    assert (record.id, "benign") in pick(found.columns, "id", "label")
    assert subject.label(record.id, "")
    assert subject.copy(1.0).snapshot().kept == 100


def test_labels_are_bounded_and_age_too() -> None:
    subject = filled(stream(MAX_LABELLED + 50), capacity=2000)
    for each in sorted(ids(subject)):
        assert subject.label(each, "benign")
    labels = subject.copy(0.0).snapshot().columns["label"]
    assert labels.count("benign") == MAX_LABELLED
    assert subject.copy(1.1 * HOUR).snapshot().kept == 0


def test_memory_is_bounded() -> None:
    subject = reservoir(1000)
    before = subject.nbytes
    assert before <= 128 * (1000 + SLACK)  # bytes a sample, with two detectors
    for each in stream(10_000):
        subject.add(each, 0.0)
        assert len(subject) <= 1000 + SLACK
    assert subject.nbytes == before


def test_requests_of_the_defence_before_are_left_out() -> None:
    subject = reservoir(from_s=50.0)
    early, late = flow(sample((1.0, 1.0))), flow(sample((2.0, 2.0)))
    early.arrival_s, late.arrival_s = 49.9, 50.1
    subject.add(early, 0.0)
    subject.add(late, 0.0)
    assert subject.copy(0.0).snapshot().scores["residual"] == [2.0]


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [("", "", True), ("", "1", True), ("1", "", True), ("1", "1", True), ("1", "2", False)],
)
def test_a_version_that_becomes_known_is_no_other(before: str, after: str, goes_on: bool) -> None:
    subject = Reservoir(replace(SUBJECT, version=before), 10, Keyed(KEY), now_s=0.0, max_age_s=HOUR)
    assert subject.continues(replace(SUBJECT, version=after)) is goes_on
    assert not subject.continues(replace(SUBJECT, defence="another"))
