"""How many calls may be cancelled, by a clock that goes when it is told to."""

from __future__ import annotations

import pytest

from proxy.cancellations import Cancellations


class Bucket:
    """Cancellations at a rate and a time of the test's."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.now_s = 5.0
        self.subject = Cancellations(lambda: self.rate, lambda: self.now_s)

    def granted(self, wanted: int = 1000) -> int:
        return sum(self.subject.grant() for _ in range(wanted))


def test_a_burst_is_a_seconds_worth() -> None:
    assert Bucket(10).granted() == 10


@pytest.mark.parametrize(("waited_s", "more"), [(0.05, 0), (0.1, 1), (0.55, 5), (1, 10), (60, 10)])
def test_tokens_come_back_at_the_rate(waited_s: float, more: int) -> None:
    bucket = Bucket(10)
    bucket.granted()
    bucket.now_s += waited_s + 1e-9
    assert bucket.granted() == more


def test_less_than_one_a_second_is_one_now_and_then() -> None:
    bucket = Bucket(0.1)
    assert bucket.granted() == 1
    bucket.now_s += 9.9
    assert bucket.granted() == 0
    bucket.now_s += 0.2
    assert bucket.granted() == 1


def test_at_zero_none_is() -> None:
    bucket = Bucket(0)
    bucket.now_s += 1000
    assert bucket.granted() == 0


def test_a_new_rate_counts_from_now_on() -> None:
    bucket = Bucket(0)
    bucket.rate = 5
    bucket.now_s += 1
    assert bucket.granted() == 5
    bucket.rate = 0
    assert bucket.granted() == 0
