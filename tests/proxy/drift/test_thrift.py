"""Measuring inputs takes a bounded share of the time, whatever one measurement takes."""

from __future__ import annotations

import pytest

from proxy.drift.thrift import SHARE, Thrift


@pytest.mark.parametrize("cost_s", [0.0001, 0.01, 0.5])
def test_its_share_of_the_time_is_bounded(cost_s: float) -> None:
    now_s = spent_s = 0.0
    thrift = Thrift(lambda: now_s)
    assert thrift.begin(), "the first is measured"
    now_s += cost_s
    thrift.end()
    start_s = now_s
    while now_s - start_s < 200 * cost_s:
        if thrift.begin():
            now_s += cost_s
            spent_s += cost_s
            thrift.end()
        now_s += cost_s / 10
    assert 0.5 * SHARE < spent_s / (now_s - start_s) <= SHARE * 1.01


def test_what_costs_nothing_is_always_measured() -> None:
    thrift = Thrift(lambda: 5.0)
    for _ in range(3):
        assert thrift.begin()
        thrift.end()
