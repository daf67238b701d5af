from __future__ import annotations

from loadtests.harness import Report
from loadtests.query_attacks.memory import judge, measure


def test_every_operation_and_the_bytes_are_judged() -> None:
    rows = measure((2048,), rounds=3)
    report = Report("Memory", list(rows))
    judge(report, rows)
    figures = [row["figure"] for row in report.rows if "figure" in row]
    assert len(figures) == len(set(figures)) == 6
    found = {row["operation"]: row["found_per_query"] for row in rows if "operation" in row}
    assert found["look up strangers"] == 0
    assert 7 < float(found["look up acquaintances"] or 0) <= 8
