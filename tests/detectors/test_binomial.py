from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from detectors.binomial import lower_bound, upper_bound


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_equals_the_beta_quantiles(case: tuple[int, int]) -> None:
    count, total = case
    upper = stats.beta.ppf(0.95, count + 1, total - count) if count < total else 1.0
    lower = stats.beta.ppf(0.05, count, total - count + 1) if count else 0.0
    assert upper_bound(count, total) == pytest.approx(upper, abs=1e-9)
    assert lower_bound(count, total) == pytest.approx(lower, abs=1e-9)


def test_the_rule_of_three() -> None:
    # Nothing seen in n trials: 1 - 0.05^(1/n), about 3 / n.
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05**0.01)


def test_large_samples_stay_exact() -> None:
    expected = stats.beta.ppf(0.975, 101, 9900)
    assert upper_bound(100, 10_000, 0.975) == pytest.approx(expected, abs=1e-9)
