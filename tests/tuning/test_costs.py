"""What is concluded from costs."""

from __future__ import annotations

import pytest

from tuning.costs import Cost, recommendation, table
from tuning.knee import Capacity, Knee, Step
from tuning.variants import Variant


def cost(name: str, strength: int, added_ms: float, knee_per_s: float) -> Cost:
    step = Step(knee_per_s, knee_per_s, 2.0, 3.0, True)
    knee = Knee(4.0, best=step if knee_per_s else None, steps=[step])
    return Cost(Variant(name, None, strength), Capacity(1.0, 2.0, knee), added_ms, 0.5, None)


COSTS = [
    cost("pass-through", 0, 0.0, 900),
    cost("observe", 1, 0.2, 700),
    cost("enforce, input only", 2, 0.4, 600),
    cost("enforce, sequential", 4, 3.0, 300),
    cost("enforce", 4, 2.0, 250),
]


@pytest.mark.parametrize(
    ("budget_ms", "taken", "then"),
    [
        (5.0, "'enforce, sequential', which adds 3.00 ms", "Nothing here protects more"),
        (2.5, "'enforce', which adds 2.00 ms", "Nothing here protects more"),
        (1.0, "'enforce, input only'", "More protection does not fit: 'enforce', which adds 2.00"),
        (0.3, "'observe'", "More protection does not fit: 'enforce, input only'"),
    ],
)
def test_the_strongest_that_fits_and_of_those_what_takes_the_most(
    budget_ms: float, taken: str, then: str
) -> None:
    told = recommendation(COSTS, budget_ms)
    assert told.startswith(f"Within {budget_ms:g} ms take {taken}")
    assert then in told
    assert "pass-through" not in told


def test_where_nothing_fits_it_says_what_is_nearest() -> None:
    told = recommendation(COSTS, 0.1)
    assert told.startswith("Nothing fits into 0.1 ms: the least is 'observe'")


def test_rows_are_flat_and_say_where_no_knee_was_found() -> None:
    row = cost("enforce", 4, 1.0, 0.0).row()
    assert row["knee_per_s"] == 0
    assert all(isinstance(value, str | int | float | None) for value in row.values())
    assert table("m", COSTS).row_count == len(COSTS)
