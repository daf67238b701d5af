"""Columns over the wire, and several workers' as one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proxy.records.reservoir import Reservoir
from proxy.records.sketch import Keyed
from proxy.records.snapshot import Snapshot, empty, encoded, merged, rounded
from tests.proxy.records.flows import KEY, SUBJECT, flow, pick, sample, shuffled, stream


def snapshot(flows: list[Any], *labels: tuple[str, Any], now_s: float = 5.0) -> Snapshot:
    subject = Reservoir(SUBJECT, 100, Keyed(KEY), now_s=1.0, max_age_s=1e9)
    for each in flows:
        subject.add(each, now_s)
    for id_, label in labels:
        assert subject.label(id_, label)
    return subject.copy(now_s).snapshot()


def test_json_and_back() -> None:
    found = snapshot([*stream(2000), flow(sample((1.0,)))])
    value = found.to_json()
    assert json.loads(encoded(value)) == json.loads(json.dumps(value, allow_nan=False)) == value
    assert Snapshot.from_json(value) == found
    assert value["kept"] == 100
    assert list(value["columns"]["scores"]) == value["detectors"] == ["residual", "margin"]
    assert json.loads(encoded(empty("cnn").to_json()))["kept"] == 0


@pytest.mark.parametrize("length", [0, 1, 999, 1000, 1001, 2500])
def test_long_columns_are_encoded_in_pieces(length: int) -> None:
    value = {"a": list(range(length)), "b": {"c": [None] * length}, "d": float("nan"), "e": "\x1b"}
    expected = {**value, "d": None}
    assert json.loads(encoded(value)) == expected


@pytest.mark.parametrize("split", [1, 2, 5])
def test_workers_merge_to_what_one_process_keeps(split: int) -> None:
    flows = shuffled(
        stream(3000) + stream(40, seed=1, principal="bob") + stream(40, seed=2, principal="carol")
    )
    flows += flows[:500]  # copies, at another worker
    workers = [snapshot(flows[i::split]) for i in range(split)]
    whole = snapshot(flows)
    found = merged(workers, "cnn")
    assert found.seen == whole.seen
    assert pick(found.columns, "hash", "principal") == pick(whole.columns, "hash", "principal")
    assert set(zip(*found.scores.values(), strict=True)) == set(
        zip(*whole.scores.values(), strict=True)
    )


def test_labels_survive_the_merge() -> None:
    plenty = [snapshot(stream(1000, seed=i)) for i in (1, 2, 3)]
    labelled = snapshot([flow(sample((1.0, 2.0)))], ("r0:0", "adversarial"))
    copy = snapshot([flow(sample((1.0, 2.0)), id_="copy", chain=2)], now_s=9.0)
    for order in ([labelled, copy, *plenty], [*plenty, copy, labelled]):
        found = merged(order, "cnn")
        rows = pick(found.columns, "id", "label", "chain", "time_s")
        assert ("r0:0", "adversarial", True, 9.0) in rows
        assert found.kept == 101


def test_of_two_defences_the_later_counts() -> None:
    old = snapshot(stream(10))
    new = replace(snapshot(stream(20, seed=1)), defence="the next", since_s=2.0)
    assert merged([old, new], "cnn").kept == 20
    assert merged([empty("cnn"), old], "cnn").kept == 10
    assert merged([], "cnn") == merged([empty("cnn")], "cnn") == empty("cnn")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"model": "cnn"},
        {**empty("cnn").to_json(), "columns": None},
        {**empty("cnn").to_json(), "detectors": ["residual"]},
    ],
)
def test_what_is_no_snapshot_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a snapshot"):
        Snapshot.from_json(value)


def test_columns_must_fit_together() -> None:
    value = snapshot(stream(10)).to_json()
    value["columns"]["time_s"].pop()
    with pytest.raises(ValueError, match="different lengths"):
        Snapshot.from_json(value)


def test_rounding_keeps_seven_digits() -> None:
    values = np.array([0.0, -1.23456789, 1e-30, 123456789.0, np.nan, np.inf, 5e-324, 1e308])
    found = rounded(values)
    assert found[:2] == [0.0, -1.234568]
    assert found[3] == 123456800.0
    assert found[4:6] == [None, None]
    assert found[2] == pytest.approx(1e-30, rel=1e-6)
    assert all(each is None or np.isfinite(each) for each in found)
