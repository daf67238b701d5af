"""How long a defence may take, and where the time is noted."""

from __future__ import annotations

import pytest

from proxy.budget import Budget, timed
from proxy.flow import Flow


def test_only_running_time_is_spent() -> None:
    budget = Budget(100.0)
    assert budget.left_s == 100.0
    with budget.running():
        pass
    left = budget.left_s
    assert 90 < left < 100
    assert budget.left_s == left


def test_a_spent_budget_is_zero_and_not_less() -> None:
    budget = Budget(0.0)
    with budget.running():
        assert budget.left_s == 0.0
    assert budget.left_s == 0.0


def test_time_is_noted_also_of_what_fails() -> None:
    flow = Flow("r", 0.0, None, "p")
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), timed(flow, "score"):
            raise ValueError("x")
    assert list(flow.stage_s) == ["score"]
    assert flow.stage_s["score"] > 0
