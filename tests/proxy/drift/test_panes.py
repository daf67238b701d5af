"""Windows in halves: what they hold, when they are looked at, who counts as one."""

from __future__ import annotations

import numpy as np

from detectors.drift_test import compare
from proxy.drift.batch import Batch
from proxy.drift.panes import ENOUGH, CountPanes, TimePanes
from tests.proxy.drift.samples import reference

REFERENCE = reference()
KEY = b"k" * 16


def batch(times: list[float], names: list[str] | None = None) -> Batch:
    count = len(times)
    return Batch(
        np.array(times, float),
        names or [f"client-{i}" for i in range(count)],
        {"score/one": np.zeros(count), "verdict": np.zeros(count)},
    )


def blocks_of(panes: CountPanes | TimePanes) -> int:
    return max(finding.blocks for finding in compare(REFERENCE, panes.window()))


def test_a_window_by_count_holds_its_two_last_full_halves() -> None:
    panes = CountPanes(REFERENCE, KEY, count=10)
    marks, totals = [], []
    for _ in range(6):
        panes.add(batch([0.0] * 4))
        marks.append(panes.mark)
        totals.append(panes.window().total)
    assert marks == [0, 1, 2, 3, 4, 4]
    assert totals == [0, 5, 10, 10, 10, 10]
    panes.add(batch([0.0] * 1000))
    assert panes.window().total == 10
    panes.add(batch([]))
    assert panes.window().total == 10


def test_a_window_by_time_holds_its_two_last_halves() -> None:
    panes = TimePanes(REFERENCE, KEY, seconds=20, now_s=100.0)
    start = panes.mark
    panes.add(batch([101, 105, 109]))
    assert (panes.mark - start, panes.window().total) == (0, 0)
    panes.add(batch([110, 111]))
    assert (panes.mark - start, panes.window().total) == (1, 3)
    panes.add(batch([122]))
    assert (panes.mark - start, panes.window().total) == (2, 5)
    panes.pass_to(130.0)
    assert panes.window().total == 3
    panes.pass_to(1e9)
    assert panes.window().total == 0


def test_a_clock_that_is_put_back_breaks_nothing() -> None:
    panes = TimePanes(REFERENCE, KEY, seconds=20, now_s=100.0)
    mark = panes.mark
    panes.add(batch([105, 95, 104, 112, 96]))
    assert (panes.mark - mark, panes.window().total) == (1, 3)
    panes.pass_to(50.0)
    assert panes.mark - mark == 1


def test_many_principals_are_a_block_each() -> None:
    clients = 2 * ENOUGH
    panes = CountPanes(REFERENCE, KEY, count=4 * clients)
    for _ in range(8):
        panes.add(batch([0.0] * clients))
    assert clients / 2 < blocks_of(panes) <= clients


def test_one_principal_for_all_is_told_apart_by_stretches() -> None:
    by_count = CountPanes(REFERENCE, KEY, count=640)
    by_time = TimePanes(REFERENCE, KEY, seconds=640, now_s=0.0)
    gateway = batch([float(i) for i in range(320)], ["gateway"] * 320)
    for panes in (by_count, by_time):
        panes.add(gateway)
        panes.add(batch([320.0], ["gateway"]))
        assert blocks_of(panes) == 1, "nothing is known of who asks yet"
        for half in (1, 2, 3):
            times = [float(320 * half + i) for i in range(320)]
            panes.add(batch(times, ["gateway"] * 320))
        assert blocks_of(panes) > 40
