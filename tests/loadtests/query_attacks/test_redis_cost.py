"""What remembering in Redis costs is measured on a real server."""

from __future__ import annotations

import os

import pytest

from loadtests.harness import Report
from loadtests.query_attacks import redis_cost
from loadtests.query_attacks.redis_server import RedisUnavailable


def test_rows_and_figures() -> None:
    try:
        rows = redis_cost.measure((redis_cost.AT_ONCE,), rounds=2)
    except RedisUnavailable as reason:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(reason))
    filled, *looked_up = rows
    assert 300 < float(filled["bytes_per_query"] or 0) < 1000
    assert [row["operation"] for row in looked_up] == list(redis_cost.OPERATIONS)
    found = [float(row["found_per_query"] or 0) for row in looked_up]
    assert found == pytest.approx([0, 8, 8], abs=0.1)  # one may be drawn twice
    report = Report("")
    redis_cost.judge(report, rows)
    assert [row["to_reach"] for row in report.rows] == ["<= 1000", "<= 3", "<= 3", "<= 3"]
