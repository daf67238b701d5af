"""Requests as columns, whatever is missing from them."""

from __future__ import annotations

import numpy as np

from proxy.drift.batch import Scored, batch_of
from proxy.flow import SampleVerdict, Verdict

SIGNALS = ("score/one", "score/two", "input/contrast", "classes", "verdict")
NAMES = ("brightness", "contrast")


def scored(*verdicts: Verdict, **facts: object) -> Scored:
    samples = tuple(
        SampleVerdict(each, 0.0, 0.0, {}, scores={"one": float(i), "other": 9.0})
        for i, each in enumerate(verdicts)
    )
    known = {"statistics": None, "classes": None, **facts}
    return Scored(5.0, "who", samples, **known)  # type: ignore[arg-type]


def test_all_there_is_becomes_a_column() -> None:
    statistics = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)
    request = scored(
        Verdict.PASS, Verdict.SUSPICIOUS, statistics=statistics, classes=np.array([4, -1])
    )
    batch = batch_of([request, scored(Verdict.FAILED)], SIGNALS, NAMES)
    nan = np.nan
    assert len(batch) == 3
    assert batch.principals == ["who"] * 3
    np.testing.assert_array_equal(batch.values["score/one"], [0, 1, 0])
    np.testing.assert_array_equal(batch.values["score/two"], [nan, nan, nan])
    np.testing.assert_allclose(batch.values["input/contrast"], [0.2, 0.4, nan])
    np.testing.assert_array_equal(batch.values["classes"], [4, nan, nan])
    np.testing.assert_array_equal(batch.values["verdict"], [0, 1, nan])
    part = batch.part(slice(1, 2))
    assert (len(part), len(part.values["verdict"])) == (1, 1)


def test_figures_of_another_size_are_none() -> None:
    odd = {"statistics": np.zeros((2, 2), np.float32), "classes": np.zeros(3, np.int64)}
    batch = batch_of([scored(Verdict.PASS, **odd)], SIGNALS, NAMES)
    assert np.isnan(batch.values["input/contrast"]).all()
    assert np.isnan(batch.values["classes"]).all()


def test_nothing_at_all_is_a_batch() -> None:
    batch = batch_of([], SIGNALS, NAMES)
    assert len(batch) == 0
    assert {len(column) for column in batch.values.values()} == {0}
