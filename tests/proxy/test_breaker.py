"""Circuit breakers open, half-open and close on what the detectors do."""

from __future__ import annotations

from proxy.breaker import (
    FAILURES,
    LONGEST_S,
    OPEN_S,
    PROBE_S,
    WINDOW,
    Admission,
    Breaker,
    Circuits,
    State,
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES):
        breaker.failed()
    assert breaker.state is State.OPEN
    return breaker


def test_it_opens_on_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(Clock())
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert breaker.state is State.OPEN
    assert not breaker.allows()


def test_failures_far_apart_do_not_open_it() -> None:
    breaker = Breaker(Clock())
    for _ in range(10 * FAILURES):
        breaker.failed()
        for _ in range(WINDOW // (FAILURES - 1)):
            breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_half_open_lets_one_probe_through() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.seconds += OPEN_S
    assert breaker.allows()
    assert breaker.state is State.HALF_OPEN
    assert not breaker.allows()


def test_a_good_probe_closes_it_with_a_clean_slate() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.seconds += OPEN_S
    breaker.allows()
    breaker.succeeded()
    assert breaker.state is State.CLOSED
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert breaker.state is State.CLOSED


def test_each_bad_probe_doubles_the_pause_up_to_the_longest() -> None:
    clock = Clock()
    breaker = opened(clock)
    pause = OPEN_S
    for _ in range(12):
        clock.seconds += pause - 0.001
        assert not breaker.allows()
        clock.seconds += 0.002
        assert breaker.allows()
        breaker.failed()
        pause = min(2 * pause, LONGEST_S)
    assert pause == LONGEST_S


def test_a_probe_nobody_hears_of_is_replaced() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.seconds += OPEN_S
    assert breaker.allows()
    clock.seconds += PROBE_S
    assert breaker.allows()


def test_late_news_of_passes_begun_before_it_opened_changes_nothing() -> None:
    clock = Clock()
    breaker = opened(clock)
    breaker.succeeded()
    assert breaker.state is State.OPEN
    breaker.failed()
    clock.seconds += OPEN_S
    assert breaker.allows()


def test_circuits_leave_out_what_fails_and_say_so() -> None:
    clock = Clock()
    told: list[tuple[str, State]] = []
    circuits = Circuits(("a", "b"), clock)
    circuits.on_change = lambda name, state: told.append((name, state))
    assert circuits.admit() == Admission()
    for _ in range(FAILURES):
        circuits.failed("a")
        circuits.succeeded("b")
    assert circuits.admit() == Admission(frozenset("a"))
    clock.seconds += OPEN_S
    probe = circuits.admit()
    assert probe == Admission(frozenset(), frozenset("a"))
    assert circuits.admit() == Admission(frozenset("a")), "only one"
    circuits.release(probe)
    assert circuits.admit() == probe, "the next, where nothing came of it"
    circuits.succeeded("a")
    circuits.release(probe)
    assert circuits.admit() == Admission()
    assert told == [("a", State.OPEN), ("a", State.HALF_OPEN), ("a", State.CLOSED)]
    assert circuits.states == {"a": State.CLOSED, "b": State.CLOSED}


def test_what_was_no_request_is_forgotten() -> None:
    circuits = Circuits(("a",), Clock())
    for _ in range(FAILURES):
        circuits.failed("a")
    circuits.reset()
    assert circuits.admit() == Admission()
    for _ in range(FAILURES - 1):
        circuits.failed("a")
    assert circuits.admit() == Admission()
